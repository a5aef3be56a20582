from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading

import pytest
from pydantic import SecretStr

from twm_pipeline.errors import ConfigError
from twm_pipeline.settings import environment_of
from twm_pipeline.webhooks.secrets import PATH_EVENTS, HookSecrets, file_of

PROGRAM = """
import sys
from twm_pipeline.settings import load_settings
from twm_pipeline.webhooks.secrets import HookSecrets
print("ready", flush=True)
sys.stdin.readline()
found = HookSecrets.load(load_settings())
print(found.teamwork_token, found.missive_secret, *found.missive_paths.values())
"""


def test_secrets_are_made_once_and_kept(settings):
    first, second = HookSecrets.load(settings), HookSecrets.load(settings)

    assert first == second
    assert set(first.missive_paths) == set(PATH_EVENTS)
    texts = {first.teamwork_token, first.missive_secret, *first.missive_paths.values()}
    assert len(texts) == 2 + len(PATH_EVENTS)
    assert {len(text) for text in texts} == {64}


def test_only_the_owner_may_read_them(settings):
    HookSecrets.load(settings)

    assert stat.S_IMODE(file_of(settings).stat().st_mode) == 0o600

    file_of(settings).chmod(0o644)
    HookSecrets.load(settings)

    assert stat.S_IMODE(file_of(settings).stat().st_mode) == 0o600


def test_settings_win_over_what_was_made_and_are_not_stored(settings):
    made = HookSecrets.load(settings)
    update = {"teamwork_webhook_secret": SecretStr("mine"), "missive_webhook_secret": SecretStr("mine too")}

    found = HookSecrets.load(settings.model_copy(update=update))

    assert (found.teamwork_token, found.missive_secret) == ("mine", "mine too")
    assert "mine" not in file_of(settings).read_text()
    assert HookSecrets.load(settings) == made


def test_a_secret_path_tells_its_kind_of_hook(settings):
    found = HookSecrets.load(settings)

    for event, path in found.missive_paths.items():
        assert found.event_of(path) == event
    for other in ("", "0" * 64, found.missive_paths["rule"].upper(), "ü" * 64, "\ud800"):
        assert found.event_of(other) is None


def test_a_new_kind_of_hook_gets_a_path_and_leaves_the_others(settings):
    found = HookSecrets.load(settings)
    before = dict(found.missive_paths)

    path = found.path_for("incoming_carrier_pigeon")

    assert HookSecrets.load(settings).missive_paths == {**before, "incoming_carrier_pigeon": path}
    assert found.event_of(path) == "incoming_carrier_pigeon"


def test_a_file_of_an_older_version_is_completed(settings):
    before = HookSecrets.load(settings)
    kept = json.loads(file_of(settings).read_text())
    del kept["missive_paths"]["rule"], kept["missive_secret"]
    file_of(settings).write_text(json.dumps(kept))

    found = HookSecrets.load(settings)

    assert found.teamwork_token == before.teamwork_token
    assert found.missive_paths["new_comment"] == before.missive_paths["new_comment"]
    assert found.missive_secret != before.missive_secret
    assert found == HookSecrets.load(settings)


def test_several_processes_at_once_agree(settings):
    env = environment_of(settings)
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"

    answers = {program.communicate("go\n")[0] for program in programs}

    assert len(answers) == 1
    [answer] = answers
    assert len(answer.split()) == 2 + len(PATH_EVENTS)


def test_several_threads_at_once_agree_and_leave_no_draft(settings):
    found: list[HookSecrets] = []
    barrier = threading.Barrier(8)

    def load() -> None:
        barrier.wait()
        found.append(HookSecrets.load(settings))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [found[0]] * 8
    assert {path.name for path in settings.twm_data_dir.iterdir()} == {"hooks.json", "hooks.json.lock"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"missive_paths": []}',
        '{"missive_paths": {"rule": "../../x"}}',
        '{"teamwork_token": 1}',
    ],
)
def test_a_damaged_file_is_told_without_its_content_and_stays(settings, text):
    settings.twm_data_dir.mkdir()
    file_of(settings).write_text(text)

    with pytest.raises(ConfigError, match=r"hooks\.json, which keeps .* is damaged"):
        HookSecrets.load(settings)

    assert file_of(settings).read_text() == text


def test_a_repr_shows_no_secret(settings):
    found = HookSecrets.load(settings)

    assert found.teamwork_token not in repr(found)
    assert found.missive_secret not in repr(found)
    assert not any(path in repr(found) for path in found.missive_paths.values())
