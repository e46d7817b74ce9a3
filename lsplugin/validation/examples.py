"""A small complete config that the rules' examples change in one place."""

from __future__ import annotations

PAGE = """<View>
  <Text name="prompt" value="$prompt"/>
  <Pairwise name="comparison" toName="answer1,answer2"/>
  <Text name="answer1" value="$answer1"/>
  <Text name="answer2" value="$answer2"/>
  <Choices name="verdict" toName="prompt" choice="single-radio" required="true">
    <Choice value="The one I clicked is better" alias="better" hotkey="1"/>
    <Choice value="About the same" alias="tie" hotkey="2"/>
  </Choices>
</View>
"""


def page(old: str = "", new: str = "") -> str:
    """Give the page with one text replaced by another."""
    assert old in PAGE, old
    return PAGE.replace(old, new, 1) if old else PAGE


def page_with(*lines: str) -> str:
    """Give the page with more lines before its end."""
    return PAGE.replace("</View>", "".join(f"  {line}\n" for line in lines) + "</View>")
