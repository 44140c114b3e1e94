"""The verifier solves from the words alone, and isn't fooled by wrong answers."""

import ast
import inspect

import pytest

from groundup.base.records import Problem
from groundup.data.skills import SKILLS, Dice, asked, cast, draw, wrong
from groundup.evals import verify as module
from groundup.evals.verify import SOLVERS, bare, solve, verify


def situations(skill, count, test=False):
    dice = Dice("verify", skill)
    for _ in range(count):
        people = cast(dice)
        situation = draw(skill, dice, people, test)
        yield situation, asked(situation, dice, people), dice


@pytest.mark.parametrize("skill", SKILLS)
def test_solves_every_question_and_refuses_wrong_answers(skill):
    for situation, question, dice in situations(skill, 400):
        problem = Problem(situation.id, skill, question, situation.answer)
        assert solve(question, skill) == situation.value, question
        assert solve(question) == situation.value, question  # without being told the skill
        assert verify(problem, situation.answer)
        assert verify(question, situation.value)
        mistake = wrong(situation, dice)
        assert not verify(problem, SKILLS[skill].answer.format(value=mistake)), (question, mistake)
        assert not verify(problem, mistake)


@pytest.mark.parametrize("skill", SKILLS)
def test_refuses_corrupted_answers(skill):
    for situation, question, dice in situations(skill, 100, test=True):
        answer = situation.answer
        at = dice.number(0, len(situation.value) - 1)
        damaged = situation.value[:at] + ("7" if situation.value[at] != "7" else "8") + situation.value[at + 1 :]
        for text in ("", ".", "It is", "It is .", answer[:-3], answer + answer, f"{answer} {situation.value}", damaged,
                     situation.value + " " + situation.value, "not " + situation.value, situation.value[:-1]):  # fmt: skip
            assert not verify(question, text), (question, text)


def test_every_skill_has_a_solver():
    assert set(SOLVERS) == set(SKILLS)


def test_shares_no_code_with_the_world():
    tree = ast.parse(inspect.getsource(module))
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in imported if name and "data" in name]


def test_frames_of_answers():
    assert bare("It is 19.") == "19"
    assert bare(" In the  attic. ") == "attic"
    assert bare("On Monday.") == "Monday"
    assert bare("To the park") == "park"
    assert bare("t a c") == "t a c"
    assert bare("It is t a c.") == "t a c"


def test_unknown_questions():
    assert solve("Why is the sky blue?") is None
    assert not verify("Why is the sky blue?", "It is blue.")
    assert verify(Problem("1", "trivia", "Why is the sky blue?", "It is Rayleigh."), "Rayleigh")
    assert not verify(Problem("1", "trivia", "Why is the sky blue?", "It is Rayleigh."), "Mie")


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("What is 4 + 5?", "9"),
        ("What is 40 minus 5?", "35"),
        ("How many letters are in b a n a n a?", "6"),
        (
            "Mia took the key to the park. Ben moved the cup to the barn. Mia carried the key to the attic. Where is the key?",
            "attic",
        ),
        (
            "If it rains, Mia goes to the park. If it is dry, Mia goes to the barn. It is dry. Where does Mia go?",
            "barn",
        ),
        ("Ben has a trip on Sunday and a walk two days later. When is the walk?", "Tuesday"),
    ],
)
def test_known_values(question, value):
    assert solve(question) == value
