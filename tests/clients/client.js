// A Woolly client: node client.js ENDPOINT MODEL PROMPT [MAX_TOKENS] [--cancel]
//
// Prints the text as it comes; the last line has the finish reason and the number of tokens. With --cancel it
// asks the broker to stop after the first tokens. The protocol is in proto/PROTOCOL.md.
const zmq = require("zeromq");
const { encode, decode } = require("@msgpack/msgpack");

const requestId = 1;
const silenceMs = 6000; // the broker sends a beat every second while a request lives

async function main(endpoint, model, prompt, maxTokens, cancel) {
  const socket = new zmq.Dealer({ linger: 1000, receiveTimeout: silenceMs, sendTimeout: silenceMs });
  const send = (message) => socket.send(encode({ v: 1, id: requestId, ...message }));

  socket.connect(endpoint);
  await send({ type: "generate", request: { model, prompt, max_tokens: maxTokens } });
  for (;;) {
    const [frame] = await socket.receive();
    // Epochs and seeds may be larger than what a JavaScript number holds exactly.
    const message = decode(frame, { useBigInt64: true });
    if (Number(message.id) !== requestId) continue; // a beat
    switch (message.type) {
      case "tokens":
        process.stdout.write(message.text);
        if (cancel) await send({ type: "cancel" });
        cancel = false;
        break;
      case "done":
        console.log(`\n[${message.finish_reason}: ${message.completion_tokens} tokens]`);
        return 0;
      case "cancelled":
        console.log(`\n[cancelled: ${message.completion_tokens} tokens]`);
        return 0;
      case "error":
        console.error(`${message.code}: ${message.message}`);
        return 1;
    }
  }
}

const words = process.argv.slice(2).filter((word) => word !== "--cancel");
if (words.length < 3 || words.length > 4) {
  console.error("usage: node client.js ENDPOINT MODEL PROMPT [MAX_TOKENS] [--cancel]");
  process.exit(2);
}
main(words[0], words[1], words[2], Number(words[3] ?? 128), process.argv.includes("--cancel"))
  .catch((problem) => {
    console.error(problem.code === "EAGAIN" ? "the broker does not answer" : problem.message);
    return 3;
  })
  .then((status) => { process.exitCode = status; });
