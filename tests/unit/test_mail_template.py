from pathlib import Path
from typing import Any

import pytest

from lifecycle_emails.errors import ConfigurationError, RenderFailed
from lifecycle_emails.mail_template import MailTemplate, TemplateFolder


class Folder:
    """A template folder of a test's own."""

    def __init__(self, root: Path) -> None:
        self.include = root / "include"

    def write(self, name: str, text: str) -> None:
        path = self.include / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def load(self, text: str, name: str = "body.txt.j2") -> MailTemplate:
        self.write(f"welcome/{name}", text)
        return TemplateFolder(self.include, "welcome", {"campaign": "welcome"}).load(name)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_template_has_the_user_s_and_the_campaign_s_variables(folder: Folder) -> None:
    assert folder.load("{{ campaign }}/{{ user_id }}").render({"user_id": 42}) == "welcome/42"


def test_template_escapes_in_html_and_only_there(folder: Folder) -> None:
    name = "<script>alert('x')</script> & \"Co\""
    assert folder.load("{{ name }}", "body.html.j2").render({"name": name}) == (
        "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;Co&#34;"
    )
    assert folder.load("{{ name }}", "body.txt.j2").render({"name": name}) == name


@pytest.mark.parametrize("name", ["{{ 7*7 }}", "{% raw %}", "{# x #}", "${7*7}", "%(x)s", "{0.__class__}"])
def test_template_never_compiles_what_a_user_has_written(folder: Folder, name: str) -> None:
    assert folder.load("Hello {{ name }}{{ '' }}").render({"name": name}) == f"Hello {name}"


@pytest.mark.parametrize(
    "text",
    [
        "{{ name.__class__.__mro__ }}",
        "{{ name|attr('__class__')|attr('__mro__') }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ campaign.__init__.__globals__ }}",
        "{{ '{0.__class__.__mro__}'.format(name) }}",
        "{{ ('%s' % name).__class__.__mro__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ range(1000000000) | list }}",
        "{{ tags.append('x') }}",
    ],
)
def test_template_is_kept_in_its_sandbox(folder: Folder, text: str) -> None:
    tags: list[str] = []
    with pytest.raises(RenderFailed):
        folder.load(text).render({"name": "Ann", "tags": tags})
    assert tags == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Hello\n{{ nickname }}", ", line 2: `nickname` is not defined; let the audience return it"),
        ("Hello {% if nickname %}x{% endif %}", ", line 1: `nickname` is not defined"),
        ("{{ name.nickname }}", "`nickname` is not defined"),
        ("{{ table[name] }}", "a variable is not defined"),
        ("a\n\n{{ nothing }}", ", line 3: a value is NULL; write for example"),
        ("{{ name | int(default=1) + name }}", "cannot be rendered with this user's values (TypeError)"),
        (
            "{{ 1 // (name | length - name | length) }}",
            "cannot be rendered with this user's values (ZeroDivisionError)",
        ),
        ("{{ broken.value }}", "cannot be rendered with this user's values (ValueError)"),
    ],
)
def test_template_that_fails_says_where_and_why_but_no_value(folder: Folder, text: str, says: str) -> None:
    class Broken:
        @property
        def value(self) -> str:
            raise ValueError("secret")

    variables: dict[str, Any] = {"name": "secret", "nothing": None, "table": {}, "broken": Broken()}
    with pytest.raises(RenderFailed) as error:
        folder.load(text).render(variables)
    assert str(error.value).startswith("include/templates/welcome/body.txt.j2")
    assert says in str(error.value)
    assert "secret" not in str(error.value)
    assert (error.value.__cause__, error.value.__context__) == (None, None)


def test_template_names_the_layout_where_that_fails(folder: Folder) -> None:
    folder.write("layout.html.j2", "<html>\n{% block content %}{% endblock %}\n{{ footer }}\n</html>")
    template = folder.load(
        "{% extends 'layout.html.j2' %}{% block content %}{{ name }}{% endblock %}", "body.html.j2"
    )
    assert template.render({"name": "<Ann>", "footer": "&"}) == "<html>\n&lt;Ann&gt;\n&amp;\n</html>"
    with pytest.raises(
        RenderFailed, match=r"^include/templates/layout.html.j2, line 3: `footer` is not defined"
    ):
        template.render({"name": "Ann"})


def test_template_of_the_folder_goes_before_one_beside_it(folder: Folder) -> None:
    folder.write("layout.html.j2", "shared")
    folder.write("welcome/layout.html.j2", "own")
    assert folder.load("{% include 'layout.html.j2' %}").render({}) == "own"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\n{{ name", "include/templates/welcome/body.txt.j2, line 2: unexpected end of template"),
        ("a\n\n{% if %}", "line 3: "),
        ("{{ name | shout }}", "No filter named 'shout'"),
        ("{% include 'missing.j2' %}", "body.txt.j2 names template missing.j2, which does not exist"),
        ("{% include '../../campaigns/welcome.yaml' %}", "which does not exist"),
        ("{% include '/etc/passwd' %}", "which does not exist"),
        ("{% include name %}", "computes the name of a template; write the name out"),
        ("{% extends 'layout.html.j2' if name else 'x' %}", "computes the name of a template"),
    ],
)
def test_template_that_does_not_compile_says_where_and_why(folder: Folder, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        folder.load(text)
    assert says in str(error.value)


def test_template_that_does_not_compile_is_named_through_its_layout(folder: Folder) -> None:
    folder.write("layout.html.j2", "a\n{{ name | shout }}")
    with pytest.raises(
        ConfigurationError, match=r"^include/templates/layout.html.j2, line 2: No filter named 'shout'"
    ):
        folder.load("{% extends 'layout.html.j2' %}")


def test_template_that_is_missing_or_not_utf8_is_an_error(folder: Folder) -> None:
    folder.write("welcome/body.txt.j2", "")
    templates = TemplateFolder(folder.include, "welcome", {})
    with pytest.raises(
        ConfigurationError, match=r"the campaign names template nothing.j2, which does not exist"
    ):
        templates.load("nothing.j2")
    (folder.include / "templates/welcome/body.txt.j2").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        templates.load("body.txt.j2")


def test_template_of_a_field_is_named_by_its_place(folder: Folder) -> None:
    templates = TemplateFolder(folder.include, "welcome", {})
    template = templates.compile(
        "mailto:u@example.com?subject={{ user_id }}", "welcome.yaml, list_unsubscribe"
    )
    assert template.render({"user_id": 7}) == "mailto:u@example.com?subject=7"
    with pytest.raises(
        RenderFailed, match=r"^welcome.yaml, list_unsubscribe, line 1: `user_id` is not defined"
    ):
        template.render({})
    with pytest.raises(ConfigurationError, match=r"^welcome.yaml, list_unsubscribe, line 1: unexpected"):
        templates.compile("{{ }", "welcome.yaml, list_unsubscribe")


def test_template_knows_the_variables_that_it_needs(folder: Folder) -> None:
    folder.write("layout.html.j2", "{{ footer }} {{ heading }}")
    template = folder.load(
        "{% extends 'layout.html.j2' %}{% set heading = title %}"
        "{{ nickname | default('you') }}{% if city is defined %}{{ city }}{% endif %}{{ campaign }}{{ range(3) }}"
        "{% for step in steps %}{{ step }}{{ loop.index }}{% endfor %}"
    )
    assert template.variables == {"footer", "title", "steps"}
