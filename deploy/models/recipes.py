"""What each default model is: architecture, shape, tokenizer and training. One row per model; see train.py."""
from dataclasses import dataclass, replace

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

STORIES = ("What to expect: sentences are right and fit together, the child of the story keeps name, home and animal, and "
           "sums are mostly right. In longer stories it may take one friend for the other or lose count of the basket.")
ANSWERS = ("What to expect: facts, sums of numbers up to ten and baskets asked in the words of [world.py](world.py), short "
           "stories, small talk. Other words it often takes for a question that it knows, or admits not to know.")


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
    # Training, `batch` rows of `length` tokens a step. The rate falls to nothing over the second half. Every sixth
    # step has fewer rows, as long as the context; if they come last, those steps are the last sixth, and all of what
    # follows. Then `more` steps: from half the rate to nothing.
    steps: int = 3000
    more: int = 0
    are_long_last: bool = False
    batch: int = 8
    length: int = 256
    matrix_rate: float = 0.02
    other_rate: float = 0.004
    seed: int = 1

    @property
    def all_steps(self):
        return self.steps + self.more

    def rate_share(self, step):
        warm = (step % self.steps + 1) / 100
        if step < self.steps:
            return min(warm, 1.0, (self.steps - step) / (self.steps // 2))
        return min(warm, 0.5 * (self.all_steps - step) / self.more)

    def rows(self, step):
        """(rows, their length)"""
        is_long = step >= self.steps - self.steps // 6 if self.are_long_last else step % 6 == 5
        return (self.batch * self.length // self.context, self.context) if is_long else (self.batch, self.length)

    @property
    def vocab(self):
        return self.tokenizer[1]

    @property
    def attention_scale(self):
        return self.attention or (self.dim // self.heads) ** -0.5


LLAMA = Recipe("woolhill-llama", "llama", ("pieces", 512), steps=3200, more=500, are_long_last=True)
MISTRAL = Recipe("woolhill-mistral", "llama", ("pieces", 1024), layers=6, kv_heads=1, window=96, is_tied=False,
                 steps=3600, more=1000, batch=4,
                 note=STORIES + " When a child counts aloud, it often does not stop at the right number.")
GRANITE = Recipe("woolhill-granite", "granite", ("bytes", 2048, "refact"), dim=160, layers=3, heads=5, kv_heads=5, ff=512,
                 embedding_scale=6.0, residual_scale=0.5, logit_scale=4.0, attention=0.125,
                 steps=2800, batch=4)
QWEN2 = Recipe("woolhill-qwen2", "qwen2", ("bytes", 2048, "qwen2"), rope_base=1000000.0, rope_halves=True,
               has_qkv_bias=True, epsilon=1e-6, steps=3000, are_long_last=True)
CHAT = replace(QWEN2, name="woolhill-chat", base="woolhill-qwen2", note=ANSWERS, steps=2200, batch=4,
               are_long_last=False, matrix_rate=0.01, other_rate=0.002)

RECIPES = {r.name: r for r in (LLAMA, MISTRAL, GRANITE, QWEN2, CHAT)}
