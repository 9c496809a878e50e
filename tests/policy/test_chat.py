"""Chat templates: what each role reads, and masks that cover exactly the tokens that the model chose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hub
import numpy as np
import pytest

from himac_lite.errors import ModelError
from himac_lite.policy import chat as chats
from himac_lite.policy.chat import chat_of
from himac_lite.policy.loading import LoraSettings, load_policy
from himac_lite.policy.model import Policy
from himac_lite.rollout.play import Arena
from himac_lite.tasks import Describes, Words
from himac_lite.tasks.sokoban.language import parse_blueprint
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Blueprint, Level, Role, Sampling, SubGoal, TokenSequence

TASK = SokobanTask(max_steps=4, subgoal_budget=3)
WORDS = Words("RULES", "BOARD")

# What a family's conversation must be, written out by hand: (prompt, between an answer and the next, end of an answer).
OPENING = {
    "qwen2.5": "<|im_start|>system\nRULES<|im_end|>\n<|im_start|>user\nBOARD<|im_end|>\n<|im_start|>assistant\n",
    "qwen3": "<|im_start|>system\nRULES<|im_end|>\n<|im_start|>user\nBOARD<|im_end|>\n<|im_start|>assistant\n"
    "<think>\n\n</think>\n\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n"
    "RULES<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBOARD<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "<bos><start_of_turn>user\nRULES\n\nBOARD<end_of_turn>\n<start_of_turn>model\n",
}
REPLY = {
    "qwen2.5": "<|im_end|>\n<|im_start|>user\nSEEN<|im_end|>\n<|im_start|>assistant\n",
    "qwen3": "<|im_end|>\n<|im_start|>user\nSEEN<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "llama3": "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nSEEN<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "<end_of_turn>\n<start_of_turn>user\nSEEN<end_of_turn>\n<start_of_turn>model\n",
}
END = {"qwen2.5": "<|im_end|>", "qwen3": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>"}

families = pytest.mark.parametrize("family", list(hub.FAMILIES))


@pytest.fixture(scope="module")
def policy_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function: the loaded 4-bit policy of a family, made once."""
    made: dict[str, Policy] = {}

    def policy(family: str) -> Policy:
        if family not in made:
            folder = hub.make_hub(tmp_path_factory.mktemp("hub") / family, family)
            made[family] = load_policy(str(folder), LoraSettings(4, 8), device="cpu")
        return made[family]

    return policy


# ---- the joints --------------------------------------------------------------------------------------------------


@families
def test_the_joints_of_each_template(family: str):
    tokenizer = hub.make_tokenizer(family)
    chat = chat_of(tokenizer, "toy")
    assert chat is not None
    assert chat.opening(WORDS) == OPENING[family]
    assert chat.reply(" SEEN") == REPLY[family]
    assert tokenizer.convert_ids_to_tokens(chat.end) == END[family]
    assert chat.has_system == (family != "gemma")


def test_a_system_message_that_a_template_drops_goes_into_the_users():
    tokenizer = hub.make_tokenizer("qwen2.5")
    tokenizer.chat_template = (
        "{% for m in messages if m['role'] != 'system' %}<|im_start|>{{ m['content'] }}<|im_end|>"
        + ("{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}")
    )
    chat = chat_of(tokenizer, "toy")
    assert chat is not None
    assert chat.opening(WORDS) == "<|im_start|>RULES\n\nBOARD<|im_end|><|im_start|>"


def test_a_thought_that_a_template_opens_is_closed():
    tokenizer = hub.make_tokenizer("qwen3")
    tokenizer.chat_template = hub.QWEN25.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    chat = chat_of(tokenizer, "toy")
    assert chat is not None
    assert chat.opening(WORDS).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert chat.reply("SEEN") == REPLY["qwen3"]


def test_no_template_no_chat():
    assert chat_of(hub.make_tokenizer("qwen2.5", template=False), "toy") is None


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('one turn only') }}",
        "{{ messages[0]['content'] }}",  # of one message only
        "{% for m in messages %}{{ m['content'] }}{% endfor %}",  # nothing between two turns
        "{% if %}",
    ],
)
def test_a_template_without_turns_is_named_in_one_line(template: str):
    tokenizer = hub.make_tokenizer("qwen2.5")
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match="chat template of toy") as error:
        chat_of(tokenizer, "toy")
    assert "\n" not in str(error.value)


def test_an_answer_that_ends_in_plain_text_ends_with_the_end_of_text():
    tokenizer = hub.make_tokenizer("qwen2.5")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}" + (
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    chat = chat_of(tokenizer, "toy")
    assert chat is not None
    assert chat.end == tokenizer.eos_token_id
    assert chat.reply("SEEN") == "\nuser: SEEN\nassistant: "
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no special token"):
        chat_of(tokenizer, "toy")


def test_messages_without_rules_have_no_system_message():
    assert chats.messages(Words("", "BOARD")) == [{"role": "user", "content": "BOARD"}]


# A template of Qwen's form, with something at the place of the mark.
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{# HERE #}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM_IN_THE_LAST_TURN = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}"
    "{% endif %}" + TURNS.replace("{# HERE #}", "{% if system is defined and loop.last %}{{ system }}\n\n{% endif %}")
)


def test_rules_that_a_template_moves_into_the_last_turn_stay_in_the_first():
    tokenizer = hub.make_tokenizer("qwen2.5")
    tokenizer.chat_template = SYSTEM_IN_THE_LAST_TURN
    said = [*chats.messages(WORDS), {"role": "assistant", "content": "A"}, {"role": "user", "content": "B"}]
    moved = chats._render(tokenizer, said, True)
    assert moved.endswith("user\nRULES\n\nB<|im_end|>\n<|im_start|>assistant\n")
    chat = chat_of(tokenizer, "toy")
    assert chat is not None
    assert not chat.has_system
    assert chat.opening(WORDS) == "<|im_start|>user\nRULES\n\nBOARD<|im_end|>\n<|im_start|>assistant\n"
    assert chat.reply("SEEN") == REPLY["qwen2.5"]


@pytest.mark.parametrize(
    "mark",
    [
        "[{{ loop.index }}] ",
        "{% if loop.last %}now: {% endif %}",
        "{% if not loop.first %}after {{ messages[loop.index0 - 1]['content'] }}: {% endif %}",
        "{% if m['role'] == 'assistant' %}<final>{% endif %}",
    ],
    ids=["numbered", "last", "repeated", "a_mark_before_an_answer"],
)
def test_a_template_that_depends_on_a_turns_position_is_refused(mark: str):
    tokenizer = hub.make_tokenizer("qwen2.5")
    tokenizer.chat_template = TURNS.replace("{# HERE #}", mark)
    with pytest.raises(ModelError, match="chat template of toy cannot be used"):
        chat_of(tokenizer, "toy")


def test_todays_date_is_always_the_same_day():
    tokenizer = hub.make_tokenizer("qwen2.5")
    tokenizer.chat_template = "{{ strftime_now('%d %B %Y (%A)') }}\n" + TURNS
    chat = chat_of(tokenizer, "toy")
    assert chat is not None
    assert chat.opening(WORDS).startswith("26 July 2024 (Friday)\n")


# ---- what a role reads -------------------------------------------------------------------------------------------


def test_plain_words_name_every_cell_and_the_subgoal(toy_levels: list[Level]):
    episode = TASK.start(toy_levels[2])
    assert isinstance(episode, Describes)
    goal = SubGoal("push the box at (1,2) left to (1,1)")
    said = episode.describe(Role.EXECUTOR, goal)
    assert said.situation == (
        "Board (3 rows, 7 columns):\n#######\n#.$@$.#\n#######\nPlayer: (1,3)\nBoxes: (1,2), (1,4)\n"
        "Targets: (1,1), (1,5)\nSub-goal: push the box at (1,2) left to (1,1)"
    )
    assert "<sub_done>" in said.rules
    assert "<sub_done>" not in episode.describe(Role.FLAT).rules
    form = episode.describe(Role.PLANNER).rules.split("of the form\n")[1].split("\n")[0]
    assert parse_blueprint(form).subgoals == (SubGoal(form),)  # the example is of the form that is read


def test_the_small_model_reads_its_own_words_and_others_plain_ones(policy: Policy, toy_levels: list[Level]):
    episode = TASK.start(toy_levels[0])
    assert policy.prompt(episode, Role.FLAT) == policy.encode(episode.prompt(Role.FLAT))
    assert policy.observed(" moved (1,2)") == policy.encode(" moved (1,2)", prompt=False)
    assert policy.plan_tokens(TASK) == TASK.max_plan_tokens == 49
    plain = Policy(None, hub.make_tokenizer("qwen2.5", template=False), name="base")
    said = episode.describe(Role.FLAT)
    assert plain.text(plain.prompt(episode, Role.FLAT)) == f"{said.rules}\n\n{said.situation}\n"


@families
def test_a_prompt_is_the_templates_conversation(policy_of: Any, family: str, toy_levels: list[Level]):
    policy, episode = policy_of(family), TASK.start(toy_levels[0])
    said = episode.describe(Role.PLANNER)
    wanted = OPENING[family].replace("RULES", said.rules).replace("BOARD", said.situation)
    ids = policy.prompt(episode, Role.PLANNER)
    assert policy.text(ids) == wanted
    start = policy.tokenizer.bos_token_id
    assert start is None or ids.count(start) == 1  # the template writes it: not once more by the tokenizer


@families
def test_the_longest_plan_has_room(policy_of: Any, family: str):
    policy = policy_of(family)
    assert policy.plan_tokens(TASK) == len(policy.encode(TASK.longest_plan, prompt=False)) + 1
    assert len(parse_blueprint(TASK.longest_plan).subgoals) == 12


# ---- masks -------------------------------------------------------------------------------------------------------


def spans(sequence: TokenSequence, mask: bool) -> list[list[int]]:
    """Runs of generated token ids that the model chose (or did not)."""
    out: list[list[int]] = []
    before = None
    for i in range(sequence.prompt_len, len(sequence.ids)):
        if sequence.action_mask[i] != before:
            out.append([])
        before = sequence.action_mask[i]
        if before == mask:
            out[-1].append(sequence.ids[i])
    return [span for span in out if span]


@families
def test_the_mask_of_a_blueprint_is_the_answer_with_its_end(policy_of: Any, family: str, toy_levels: list[Level]):
    policy = policy_of(family)
    sampling = Sampling(1.0, np.random.default_rng(1))
    for sequence, blueprint in Arena(policy, TASK).blueprints(toy_levels[:1], 8, sampling)[0]:
        assert sequence.ids[: sequence.prompt_len] == tuple(policy.prompt(TASK.start(toy_levels[0]), Role.PLANNER))
        assert not any(sequence.action_mask[: sequence.prompt_len])
        assert all(sequence.action_mask[sequence.prompt_len :])
        assert blueprint.invalid is not None  # random weights write no plan; what they write is no exception
        ended = sequence.ids[-1] == policy.chat.end
        assert policy.chat.end not in sequence.ids[sequence.prompt_len : -1]
        assert ended or len(sequence.ids) - sequence.prompt_len == policy.plan_tokens(TASK)


def test_a_chat_models_plan_is_parsed_strictly(policy_of: Any):
    policy = policy_of("qwen2.5")
    good = "push the box at (1,2) left to (1,1)\npush the box at (1,4) right to (1,5)"
    assert TASK.parse_blueprint(policy.text(policy.encode(good, prompt=False)), True).text == good
    for text in ("1. " + good, f"Plan:\n{good}", good + " ", good.replace(" box", " Box"), f"`{good}`"):
        assert TASK.parse_blueprint(text, True).invalid is not None, text


@families
def test_the_mask_of_play_is_the_first_token_of_each_answer(policy_of: Any, family: str, toy_levels: list[Level]):
    """The whole text is the template's conversation; chosen are the first tokens of the answers and nothing else."""
    policy = policy_of(family)
    sampling = Sampling(1.0, np.random.default_rng(0))
    goal = "push the box at (1,2) left to (1,1)"
    jobs = [(toy_levels[2], Blueprint(goal, (SubGoal(goal),)))] * 6
    played = [(Role.EXECUTOR, t) for t in Arena(policy, TASK).execute(jobs, sampling)]
    played += [(Role.FLAT, t) for t in Arena(policy, TASK).play_flat(toy_levels[2:3] * 4, sampling)]
    first = {policy.encode(name, prompt=False)[0]: name for name in ("up", "down", "left", "right", "<sub_done>")}
    assert len(first) == 5
    lengths = set()
    for role, trajectory in played:
        (sequence,) = trajectory.segments
        chosen = [i for span in spans(sequence, True) for i in span]
        words = [first[i] for i in chosen]
        lengths.add(len(words))
        # The same conversation by hand: rules, board, then every answer and what it brought about.
        episode = TASK.start(toy_levels[2])
        said = episode.describe(role, SubGoal(goal) if role is Role.EXECUTOR else None)
        wanted = OPENING[family].replace("RULES", said.rules).replace("BOARD", said.situation)
        for word in words[:-1]:
            seen = episode.act(("up", "down", "left", "right").index(word))
            wanted += word + REPLY[family].replace("SEEN", seen.strip())
        assert policy.text(sequence.ids) == wanted + policy.text(chosen[-1:])
        assert sequence.ids[: sequence.prompt_len] == tuple(
            policy.prompt(TASK.start(toy_levels[2]), role, SubGoal(goal) if role is Role.EXECUTOR else None)
        )
        # Each choice is the first token of an answer: what was forced just before it ends as the prompt ends.
        for k, span in enumerate(spans(sequence, False)):
            assert policy.text(span).endswith(policy.chat.before_answer)
            assert policy.text(span).startswith(words[k].removeprefix(policy.text(chosen[k : k + 1])))
        assert all(p < 0 for p, own in zip(sequence.logp, sequence.action_mask, strict=True) if own)
        assert all(p == 0 for p, own in zip(sequence.logp, sequence.action_mask, strict=True) if not own)
    assert len(lengths) > 1  # some ended early, some did not


@families
def test_log_probs_of_the_update_are_those_of_the_rollout(policy_of: Any, family: str, toy_levels: list[Level]):
    policy = policy_of(family)
    played = Arena(policy, TASK).play_flat(toy_levels, Sampling(1.0, np.random.default_rng(0)))
    batch = [s for t in played for s in t.segments]
    scores = policy.log_probs(batch)
    assert int(scores.mask.sum()) == sum(t.steps for t in played)
    assert (scores.logp - scores.behaviour)[scores.mask].abs().max() < 1e-4


def test_a_base_model_without_a_template_plays_lines(tmp_path: Path, toy_levels: list[Level]):
    policy = load_policy(str(hub.make_hub(tmp_path / "base", "qwen2.5", template=False)), LoraSettings(4, 8))
    (t,) = Arena(policy, TASK).play_flat(toy_levels[:1])
    episode = TASK.start(toy_levels[0])
    text = policy.text(policy.prompt(episode, Role.FLAT))
    (sequence,) = t.segments
    names = {"u": "up", "d": "down", "l": "left", "r": "right"}
    lines = [f"\n{names[m.lower()]}{episode.act('udlr'.index(m.lower()))}" for m in t.moves]
    assert policy.text(sequence.ids).startswith(text + "".join(lines[:-1]))


@dataclass(frozen=True)
class Spoken:
    """A task whose actions are written."""

    actions: tuple[str, ...] = ()
    max_action_tokens: int = 12
    sub_done: str = "<sub_done>"
    end: str = "<end>"


@families
def test_a_written_action_is_an_answer_and_its_turn_ends_once(family: str):
    policy = Policy(None, hub.make_tokenizer(family), name="toy", chat=chat_of(hub.make_tokenizer(family), "toy"))
    words = policy.encode("move the box", prompt=False)
    assert policy.chat is not None

    def played(tokens: list[int], limit: int) -> str:
        reader = policy.reader(Spoken(max_action_tokens=limit), 1)
        *before, choice = [reader.read(0, token) for token in tokens]
        assert before == [None] * (len(tokens) - 1)
        assert choice is not None
        assert choice.action == "move the box"
        return policy.text([*tokens, *choice.rest, *policy.observed("SEEN", choice.ended)])

    assert played([*words, policy.chat.end], 12) == "move the box" + REPLY[family]  # the model ends its answer itself
    assert played(words, len(words)) == "move the box" + REPLY[family]  # it is cut off: its end is written for it
