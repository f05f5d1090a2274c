"""What each default model is: architecture, shape, tokenizer and training. One row per model; see train.py."""
from dataclasses import dataclass, replace

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

STORIES = ("What to expect: sentences are right and fit together, and the child of the story keeps name, home and animal. "
           "With so little training it easily takes the friend for that child and loses count of what is in the basket.")
ANSWERS = ("What to expect: facts, small sums and baskets asked in the words of [world.py](world.py), short stories, small "
           "talk. It sometimes miscounts, and admits not to know only where a question is strange in a way it was shown.")


@dataclass(frozen=True)
class Recipe:
    name: str
    architecture: str
    tokenizer: tuple          # ("pieces", size) or ("bytes", size, name of the pre-tokenizer)
    dim: int = 128
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    ff: int = 448
    context: int = 512
    window: int = 0           # 0: sees everything
    rope_base: float = 10000.0
    rope_halves: bool = False
    has_qkv_bias: bool = False
    is_tied: bool = True
    epsilon: float = 1e-5
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    attention: float = 0.0    # 0: 1 / sqrt(head_dim)
    base: str = ""            # fine-tuned from this model, on conversations
    note: str = STORIES       # for the card: what to expect of it
    # Training, `batch` rows of `length` tokens a step. First `steps` steps: the rate falls to nothing over the last
    # third, and the last sixth has fewer rows as long as the context. Then `more` steps: from half the rate to nothing,
    # every third step with long rows.
    steps: int = 1800
    more: int = 0
    batch: int = 8
    length: int = 256
    matrix_rate: float = 0.02
    other_rate: float = 0.004
    seed: int = 1

    @property
    def all_steps(self):
        return self.steps + self.more

    def rate_share(self, step):
        warm = (step % self.steps + 1) / 40
        if step < self.steps:
            return min(warm, 1.0, (self.steps - step) / (self.steps // 3))
        return min(warm, 0.5 * (self.all_steps - step) / self.more)

    def rows(self, step):
        """(rows, their length)"""
        is_long = step >= self.steps - self.steps // 6 if step < self.steps else step % 3 == 0
        return (self.batch * self.length // self.context, self.context) if is_long else (self.batch, self.length)

    @property
    def vocab(self):
        return self.tokenizer[1]

    @property
    def attention_scale(self):
        return self.attention or (self.dim // self.heads) ** -0.5


LLAMA = Recipe("woolhill-llama", "llama", ("pieces", 512), more=1800)
MISTRAL = Recipe("woolhill-mistral", "llama", ("pieces", 1024), layers=6, kv_heads=1, window=96, is_tied=False, steps=2000, more=800)
GRANITE = Recipe("woolhill-granite", "granite", ("bytes", 2048, "refact"), dim=160, layers=3, heads=5, kv_heads=5, ff=512,
                 embedding_scale=6.0, residual_scale=0.5, logit_scale=4.0, attention=0.125, steps=1100,
                 more=600)
QWEN2 = Recipe("woolhill-qwen2", "qwen2", ("bytes", 2048, "qwen2"), rope_base=1000000.0, rope_halves=True,
               has_qkv_bias=True, epsilon=1e-6)
CHAT = replace(QWEN2, name="woolhill-chat", base="woolhill-qwen2", note=ANSWERS, steps=1200, matrix_rate=0.01,
               other_rate=0.002)

RECIPES = {r.name: r for r in (LLAMA, MISTRAL, GRANITE, QWEN2, CHAT)}
