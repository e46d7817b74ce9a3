"""The rules about CSS: each finds its fault on its line, and leaves alone what browsers take well."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

import lsplugin.validation.css
import lsplugin.validation.css_classes  # noqa: F401 - declares its rules
from lsplugin.render import render
from lsplugin.template import Spec, theme_names
from lsplugin.validation.config import Config
from lsplugin.validation.css_cascade import ALWAYS, Cascade, holdings, nodes_of
from lsplugin.validation.css_colour import Rgba, contrast, parse_colour
from lsplugin.validation.css_contrast import INK, _painted
from lsplugin.validation.css_sheet import is_foreign, parse_inline, parse_sheet, sheets
from lsplugin.validation.rule import RULES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CSS_RULES = [rule for rule in RULES.values() if rule.id.startswith("css-")]

PAGE = """<View className="mine">
  <Style>
{css}
  </Style>
  <View className="box">
    <Text name="answer1" value="$answer1"/>
  </View>
  <View className="box">
    <Text name="answer2" value="$answer2"/>
  </View>
  <Pairwise name="comparison" toName="answer1,answer2"/>
</View>
"""
DEFINED = ".mine { margin: 0; } .box { margin: 0; }"


def found(xml: str) -> list[tuple[str, int]]:
    """(rule, line) of everything that the CSS rules say."""
    config = Config(xml, etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False)))
    return sorted(((issue.rule, issue.line) for rule in CSS_RULES for issue in rule.issues(config)), key=lambda x: x[1])


def page(css: str) -> str:
    """A config whose own CSS begins on line 4, after one line that defines its classes."""
    return PAGE.replace("{css}", f"{DEFINED}\n{css}")


DARK_VARIABLES = """.mine { --ink: #222222; --page: #ffffff; }
.box { color: var(--ink); background: var(--page); }
[data-color-scheme="dark"] .mine { --page: #333333; }"""

BAD = [
    ("css-syntax", 4, ".box { margin 0; }"),
    ("css-syntax", 5, ".box {\n  color: #222222 margin: 0;\n}"),
    ("css-syntax", 4, ".box { margin: ; }"),
    ("css-syntax", 4, "..box { margin: 0; }"),
    ("css-syntax", 4, "@medai print { .box { margin: 0; } }"),
    ("css-syntax", 5, ".box { margin: 0; }\n.box "),
    ("css-unbalanced", 4, ".box { margin: 0;\n.mine .box { padding: 0; }"),
    ("css-unbalanced", 4, ".box { margin: 0; }}\n.mine .box { padding: 0; }"),
    ("css-unbalanced", 5, ".box { margin: 0; }\n/* and so on\n.mine .box { padding: 0; }"),
    ("css-unbalanced", 4, ".box { width: calc(1px + 2px; }\n.mine .box { padding: 0; }"),
    ("css-unbalanced", 4, ".box { font-family: 'Arial; }\n.mine .box { padding: 0; }"),
    ("css-escaped", 4, ".mine > .box { margin: 0; }"),
    ("css-escaped", 4, "@media (width >= 900px) { .box { margin: 0; } }"),
    ("css-escaped", 5, ".mine {\n  &amp;:hover { margin: 0; }\n}"),
    ("css-escaped", 4, ".box::before { content: '&lt;'; }"),
    ("css-escaped", 2, "]]><![CDATA[ .box { margin: 0; } ]]>".removeprefix("]]>")),
    ("css-global", 4, "* { margin: 0; }"),
    ("css-global", 4, "body { margin: 0; }"),
    ("css-global", 4, ":root { --color-neutral-content: #222222; }"),
    ("css-global", 5, ".box p,\np { margin: 0; }"),
    ("css-global", 4, ".lsf-richtext__line:hover { margin: 0; }"),
    ("css-global", 4, "body:has(.box) { margin: 0; }"),
    ("css-global", 4, ":is(.box, p) { margin: 0; }"),
    ("css-global", 4, "#root { margin: 0; }"),
    ("css-global", 5, "@media print {\n  p { margin: 0; }\n}"),
    ("css-foreign", 4, '@import "https://example.org/a.css";'),
    ("css-foreign", 4, ".box { background: URL(HTTPS://example.org/a.png); }"),
    ("css-foreign", 5, '.box {\n  background: url("//example.org/a.png");\n}'),
    ("css-foreign", 4, '@font-face { font-family: x; src: url("https://example.org/a.woff2"); }'),
    ("css-foreign", 4, '.box { background: image-set("http://example.org/a.png" 1x); }'),
    ("css-foreign", 4, r".box { background: url(\68ttps://example.org/a.png); }"),
    ("css-foreign", 4, ".box { --picture: url(http://example.org/a.png); }"),
    ("css-foreign", 4, "@media print { .box { background: url(http://example.org/a.png); } }"),
    ("css-hides", 4, ".box { display: none; }"),
    ("css-hides", 4, ".box { visibility: hidden !important; }"),
    ("css-hides", 4, ".mine .box { opacity: 0; }"),
    ("css-hides", 4, ".box { font-size: 0; }"),
    ("css-hides", 4, ".box { height: 120px; overflow: hidden; }"),
    ("css-hides", 4, ".box { max-height: 20em; overflow-y: clip; }"),
    ("css-hides", 4, ".box { white-space: nowrap; text-overflow: ellipsis; }"),
    ("css-hides", 4, ".box { position: absolute; left: -9999px; }"),
    ("css-hides", 4, ".box .lsf-richtext__container { display: none; }"),
    ("css-hides", 4, ".box * { visibility: hidden; }"),
    ("css-class-unused", 4, ".boxes { margin: 0; }"),
    ("css-class-unused", 4, ".mine:has(.chosen) { margin: 0; }"),
    ("css-contrast", 4, ".box { color: white; background: #0084ff; }"),
    ("css-contrast", 4, ".box { color: rgb(255 255 255 / 50%); background: #0084ff; }"),
    ("css-contrast", 4, ".box { color: #bbbbbb; }"),
    ("css-contrast", 4, ".box { background: #333333; }"),
    ("css-contrast", 5, ".mine { color: #ffffff; background: #222222; }\n.box { background: hsl(0, 0%, 90%); }"),
    ("css-contrast", 5, ".box { color: #ffffff; background: #222222; }\n.box:hover { background: #eeeeee; }"),
    ("css-contrast", 5, ".mine { --ink: #999999; }\n.box { color: var(--ink); }"),
    ("css-contrast", 4, ".box { color: var(--color-neutral-content, #999999); }"),
    ("css-contrast", 5, DARK_VARIABLES),
    ("css-contrast", 4, ".mine .ant-tag { color: #ffffff; background: #27ae60; }"),
    ("css-contrast", 4, ".box::after { content: 'x'; background: #444444; }"),
]


@pytest.mark.parametrize(("rule", "line", "css"), BAD, ids=[f"{row[0]}-{number}" for number, row in enumerate(BAD)])
def test_each_fault_is_found_on_its_line_and_nothing_else(rule: str, line: int, css: str) -> None:
    assert found(page(css)) == [(rule, line)]


@pytest.mark.parametrize(
    "css",
    [
        ".mine .box p, .mine .box:hover, .mine .box::before { margin: 0; }",
        "body .mine { margin: 0; }",
        ".mine .lsf-richtext__container, .mine .ls-richtext__container { padding: 8px; }",
        ":is(.mine, .box) p { margin: 0; }",
        ".box { background: url(data:image/png;base64,AAAA); fill: url(#b); cursor: url(/static/hand.cur), auto; }",
        ".box { max-height: 300px; overflow: auto; }",
        ".box { height: auto; overflow: hidden; }",
        ".box:first-child::before { display: none; }",
        "@media print { .box { display: none; } }",
        ".box { margin-left: -10px; }",
        ".mine .box .ant-checkbox { opacity: 0; position: absolute; }",
        "@keyframes fade { from { opacity: 0; } to { opacity: 1; } }",
        ".box { color: #222222; background: linear-gradient(#000000, #ffffff); }",
        ".box { background: transparent; }",
        ".box { color: inherit; background: none; }",
        ".box { color: var(--color-neutral-content); background: var(--color-neutral-background); }",
        '[data-color-scheme="dark"] .box { background: #111111; }',  # the text is Label Studio's own, light there
        ".box::after { content: none; background: #444444; }",
        ".box { grid-template-areas: 'a b' 'c d'; --x: a:b; }",
        "/* .box { color: white; background: #0084ff; } */",
        ".box { margin: 0; } @media (min-width: 900px) { .mine { display: grid; } }",
        ".mine { color: #222222; .box { color: #333333; } }",
    ],
)
def test_what_is_well_is_left_alone(css: str) -> None:
    assert found(page(css)) == []


def test_a_class_that_no_rule_styles_is_named_with_what_was_probably_meant() -> None:
    xml = page("").replace('<View className="box">', '<View className="boxx">', 1)
    config = Config(xml, etree.fromstring(xml))
    assert [(one.line, one.suggestion) for one in RULES["css-class-undefined"].issues(config)] == [(6, "`box`")]


def test_classes_of_displayed_html_are_not_called_unused() -> None:
    html = page(".result { margin: 0; }").replace("<Text ", "<HyperText ")
    assert found(html) == []
    assert found(page(".bx { margin: 0; }").replace("<Text ", "<HyperText ")) == [("css-class-unused", 4)]


def test_ids_of_the_config_scope_a_rule() -> None:
    xml = page("#mine p { margin: 0; }")
    assert found(xml) == [("css-global", 4)]
    assert found(xml.replace('className="mine"', 'className="mine" idAttr="mine"')) == []


def test_lines_are_the_configs_own_wherever_the_style_starts() -> None:
    xml = page("p { margin: 0; }").replace("<Style>", '\n\n  <!-- a\n comment -->\n  <Style\n  id="x"\n  >')
    assert found(xml) == [("css-global", 4 + 6)]
    assert xml.split("\n")[9] == "p { margin: 0; }"
    assert found(page("<!-- a\n b -->\np { margin: 0; }")) == [("css-global", 6)]


@pytest.mark.parametrize(
    ("attribute", "rule"),
    [
        ('style="background: url(https://example.org/a.png)"', "css-foreign"),
        ('style="margin 0"', "css-syntax"),
        ('style="color: #222222 !important"', "css-syntax"),
        ('style="background: url(data:image/png;base64,AAAA)"', "css-syntax"),
        ('style="display: none"', "css-hides"),
        ('style="color: #aaaaaa"', "css-contrast"),
    ],
)
def test_style_attributes_count(attribute: str, rule: str) -> None:
    assert found(page("").replace('<View className="box">', f'<View className="box" {attribute}>', 1)) == [(rule, 6)]


@pytest.mark.parametrize(
    ("css", "style", "faint"),
    [
        (".box { color: #ffffff; background: #222222; }", "background: #27ae60", True),
        (".box { color: #ffffff; background: #222222; }", "background: #1b7a4b", False),
        ("", "background: #27ae60", False),
        ("", "background: #1b7a4b", True),
        ("", "background: #1b7a4b; color: #ffffff", False),
        ("", "order: 2", False),
    ],
)
def test_the_selected_answer_is_readable(css: str, style: str, faint: bool) -> None:
    xml = page(css).replace("<Pairwise ", f'<Pairwise selectionStyle="{style}" ')
    assert found(xml) == ([("css-contrast", 12)] if faint else [])


def test_the_public_tutorials_template_deserves_its_warnings() -> None:
    """White on #27ae60 when selected, white on #0084ff in the prompt: the shape of the stock template."""
    xml = page(
        ".mine { color: #ffffff; background-color: #0084ff; }\n.box { background-color: rgba(44, 62, 80, 0.9); }\n"
        ".lsf-richtext__line:hover { background: unset; }"
    ).replace("<Pairwise ", '<Pairwise selectionStyle="background-color: #27ae60; border: 2px solid #2ecc71" ')
    assert found(xml) == [("css-contrast", 4), ("css-global", 6), ("css-contrast", 14)]


def test_contrast_is_that_of_wcag() -> None:
    """Known pairs: the extremes, the two greys around the AA threshold on white, and two pairs measured elsewhere."""
    white, black = Rgba(1, 1, 1), Rgba(0, 0, 0)
    assert contrast(white, black) == contrast(black, white) == pytest.approx(21)
    for text, ratio in (("#777777", 4.48), ("#767676", 4.54), ("#27ae60", 2.87), ("#0084ff", 3.66)):
        colour = parse_colour(text)
        assert colour is not None
        assert contrast(white, colour) == pytest.approx(ratio, abs=0.005)


@pytest.mark.parametrize(
    "text", ["#f80", "#ff8800", "#ff8800ff", "rgb(255, 136, 0)", "rgb(100% 53.3333% 0%)", "hsl(32, 100%, 50%)"]
)
def test_colours_in_every_notation_are_one(text: str) -> None:
    assert parse_colour(text) == pytest.approx((1, 136 / 255, 0, 1), abs=1e-3)


def test_what_is_no_colour_is_none() -> None:
    assert [parse_colour(text) for text in ("currentcolor", "inherit", "#12", "banana", "", "lab(50 20 20)")] == [
        None
    ] * 6


def test_half_transparent_colours_are_composited() -> None:
    assert Rgba(0, 0, 0, 0.25).over(Rgba(1, 1, 1)) == (0.75, 0.75, 0.75, 1)


@pytest.mark.parametrize(
    ("address", "foreign"),
    [
        *((text, True) for text in ("http://a.b/c", "HTTPS:a", "//a.b", r"\\a.b", " \thttp://a", "ftp://a", "blob:x")),
        *((text, False) for text in ("data:image/png;base64,AA", "#a", "/static/a.png", "a.png", "a/b:c", "")),
    ],
)
def test_foreign_addresses(address: str, foreign: bool) -> None:
    assert is_foreign(address) == foreign


@given(st.text(alphabet=st.one_of(st.sampled_from(list(".#:{}()[]<>&;,@*/\\'\"!-+~ \nvarurl0a")), st.characters())))
def test_no_text_makes_the_parser_raise(css: str) -> None:
    for sheet in (parse_sheet(css), parse_inline(css)):
        assert all(fault.line >= 1 for fault in sheet.faults)


SOUP = [
    ".a",
    "b",
    "{",
    "}",
    ":is(",
    ")",
    ":",
    "var(--x",
    "--x:",
    "color:",
    "#fff",
    ";",
    "@media",
    "url(",
    "'",
    "/*",
    "<",
]


@given(st.lists(st.sampled_from(SOUP)))
def test_no_soup_of_css_makes_a_rule_raise(parts: list[str]) -> None:
    root = etree.fromstring(page(""))
    style = root.find("Style")
    assert style is not None
    style.text = " ".join(parts)
    xml = etree.tostring(root, encoding="unicode")
    assert all(line >= 1 for _, line in found(xml))


def test_our_own_config_is_clean_and_checked_fast() -> None:
    """A sheet is parsed once: the second look at a rendered config costs little."""
    xml = render()
    assert found(xml) == []
    started = time.perf_counter()
    assert found(xml) == []
    assert time.perf_counter() - started < 0.05  # about 1 ms on an idle machine


@pytest.mark.parametrize("rule", CSS_RULES, ids=lambda rule: rule.id)
def test_examples_show_the_rule(rule: object) -> None:
    own = RULES[rule.id]  # type: ignore[attr-defined]
    assert {name for name, _ in found(own.bad)} == {own.id}
    assert found(own.good) == []


PAINTED = """() => [...document.querySelectorAll('div')].map(element => {
  let paper = 'rgb(255, 255, 255)';
  for (let at = element; at.tagName === 'DIV'; at = at.parentElement) {
    const own = getComputedStyle(at).backgroundColor;
    if (own !== 'rgba(0, 0, 0, 0)') { paper = own; break; }
  }
  return [getComputedStyle(element).color, paper];
})"""


@pytest.mark.browser
@pytest.mark.parametrize("theme", theme_names())
@pytest.mark.parametrize("template", ["pairwise", "scale", "rating"])
def test_a_browser_computes_the_same_colours(browser: Browser, template: str, theme: str) -> None:
    """Every tag of a rendered config as a div in Chromium: its text and the first background behind it are what we compute."""
    root = etree.fromstring(render(Spec(template=template, theme=theme)))
    config = Config("", root)
    nodes = nodes_of(config)
    cascade = Cascade(nodes, holdings(sheets(config)))
    ours = [_painted(cascade, at, ALWAYS, cascade.values(at, ALWAYS)) for at in range(len(nodes))]
    body = etree.Element("body", style=f"color: {INK.hex}")
    made: list[etree._Element] = []
    for node in nodes:
        parent = body if node.parent < 0 else made[node.parent]
        made.append(etree.SubElement(parent, "div", {"class": " ".join(sorted(node.classes)), "style": node.style}))
    for div in made:  # an empty element would be closed by a slash, which HTML does not know
        div.text = " "
    style = etree.Element("style")
    style.text = "".join(one.text or "" for one in config.styles)
    tab = browser.new_page(color_scheme="light")
    try:
        tab.set_content(
            etree.tostring(style, method="html", encoding="unicode") + etree.tostring(body, encoding="unicode")
        )
        theirs = tab.evaluate(PAINTED)
    finally:
        tab.close()
    assert len(theirs) == len(ours) > 5
    compared = 0
    for mine, (colour, paper) in zip(ours, theirs, strict=True):
        if mine is not None:
            compared += 1
            assert [parse_colour(colour), parse_colour(paper)] == [
                pytest.approx(mine[0], abs=0.003),
                pytest.approx(mine[1], abs=0.003),
            ]
    assert compared == len(ours)


@pytest.mark.browser
def test_a_browser_agrees_on_what_is_lost(browser: Browser) -> None:
    """Chromium drops the rule after a stray brace, and everything after an open one; what we call well it applies."""
    tab = browser.new_page()
    try:
        tab.set_content('<style id="s"></style><div class="mine"><div class="box">x</div></div>')
        last = ".mine .box { color: rgb(1, 2, 3); }"
        for css, applies in [
            (f".box {{ margin: 0; }} {last}", True),
            (f".box {{ margin: 0; {last}", False),
            (f".box {{ margin: 0; }}}} {last}", False),
            (f".box {{ width: calc(1px; }} {last}", False),
            (f".box {{ margin 0; }} {last}", True),
            (f"/* {last}", False),
        ]:
            tab.evaluate("css => { document.getElementById('s').innerHTML = css }", css)
            colour = tab.evaluate("getComputedStyle(document.querySelector('.box')).color")
            assert (colour == "rgb(1, 2, 3)") == applies, css
            assert any(fault.rule == "css-unbalanced" for fault in parse_sheet(css).faults) != applies, css
    finally:
        tab.close()
