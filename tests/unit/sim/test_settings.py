"""What a component reads from its environment, and the small pure parts."""

import base64
import itertools
from datetime import UTC, datetime
from pathlib import Path

import pytest

import wabiz_sim
from wabiz_sim import certificate
from wabiz_sim.epoch import Epoch
from wabiz_sim.settings import Settings, SettingsError
from wabiz_sim.sharding import ALLOWED_SHARDS, shard_of


def test_defaults_follow_the_name_of_the_cluster() -> None:
    settings = Settings.from_env({"WABIZ_CLUSTER": "shop", "POD_NAME": "shop-coreapp-0", "POD_UID": "u", "POD_IP": "10.0.0.7"})

    assert settings.upstream == ("shop-simulator", 8080)
    assert settings.shard_service == "shop-shard-{shard}"
    assert (settings.listen, settings.restart_seconds, settings.registered_at) == ("::", 45.0, None)


def test_everything_can_be_set() -> None:
    settings = Settings.from_env(
        {
            "POD_NAME": "p",
            "POD_UID": "u",
            "POD_IP": "127.1.2.3",
            "WABIZ_LISTEN": "127.1.2.3",
            "WABIZ_UPSTREAM": "db.example:99",
            "WABIZ_STATE_DIR": "/state",
            "WABIZ_TLS_DIR": "/tls",
            "WABIZ_SHARD_SERVICE": "s{shard}",
            "WABIZ_RESTART_SECONDS": "0.5",
            "WABIZ_CC": "1",
            "WABIZ_PHONE": "6315550000",
            "WABIZ_REGISTERED_AT": "2025-10-01T12:00:00Z",
            "WA_API_KEY": "hidden-key-12",
        }
    )

    assert settings.upstream == ("db.example", 99)
    assert (settings.state_dir, settings.tls_dir) == (Path("/state"), Path("/tls"))
    assert settings.registered_at == datetime(2025, 10, 1, 12, tzinfo=UTC)
    assert "hidden-key-12" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WABIZ_UPSTREAM", "nowhere"),
        ("WABIZ_UPSTREAM", "x:70000"),
        ("WABIZ_SHARD_SERVICE", "acme-shard"),
        ("WABIZ_RESTART_SECONDS", "soon"),
        ("WABIZ_RESTART_SECONDS", "nan"),
        ("WABIZ_RESTART_SECONDS", "-1"),
        ("WABIZ_LISTEN", "localhost"),
        ("POD_IP", "x"),
        ("WABIZ_CC", "+1"),
        ("WABIZ_REGISTERED_AT", "yesterday"),
        ("WABIZ_REGISTERED_AT", "2025-10-01T12:00:00"),
    ],
)
def test_a_bad_value_is_named_in_one_sentence(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as error:
        Settings.from_env({name: value})

    assert "\n" not in str(error.value)


def test_a_state_folder_is_made_or_asked_for(tmp_path: Path) -> None:
    assert Settings.from_env({"WABIZ_STATE_DIR": str(tmp_path / "a" / "b")}).state_folder().is_dir()
    with pytest.raises(SettingsError, match="WABIZ_STATE_DIR is not set"):
        Settings.from_env({}).state_folder()
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="mount a folder"):
        Settings.from_env({"WABIZ_STATE_DIR": str(tmp_path / "file")}).state_folder()


@pytest.mark.parametrize("shards", ALLOWED_SHARDS)
def test_recipients_spread_over_all_shards_and_stay_there(shards: int) -> None:
    recipients = [f"1631555{number:04d}" for number in range(2000)]

    shares = [sum(1 for one in recipients if shard_of(one, shards) == shard) for shard in range(shards)]

    assert min(shares) > 2000 / shards / 2
    assert shard_of("16315550000", 32) == 8


def test_epochs_compare_by_their_number() -> None:
    assert Epoch.parse("12-ab3d9") == Epoch(12, "12-ab3d9")
    assert Epoch.parse("9-z").n < Epoch.parse("10-a").n
    for bad in ("", "12", "12-", "x-1", "1.5-a", None, 12):
        with pytest.raises(ValueError, match="not of the form"):
            Epoch.parse(bad)


def test_a_certificate_can_be_read_back() -> None:
    issued, expires = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)

    text = certificate.make("Acme GmbH ü", 2**40, issued, expires)

    assert certificate.read(text) == certificate.Certificate(2**40, "ent:wa", "Acme GmbH ü", issued, expires)
    assert certificate.read(f"{text[:20]}\n {text[20:]}\n").serial == 2**40
    assert certificate.read(certificate.make("Acme", 1, issued, None)).expires_at is None
    assert len(certificate.fingerprint(text)) == 64


def test_other_base64_is_a_certificate_that_states_nothing() -> None:
    blob = base64.b64decode(certificate.make("Acme", 1, datetime.now(UTC), datetime.now(UTC)))
    for cut in itertools.chain([b"hello", b"\xff" * 40, b"\x0a\xff"], (blob[:length] for length in range(1, 30))):
        assert certificate.read(base64.b64encode(cut).decode()) == certificate.Certificate()


@pytest.mark.parametrize("text", ["", "  ", "not base64!", "abc", "äöü="])
def test_what_is_no_base64_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="not base64"):
        certificate.read(text)


def test_the_map_names_every_module() -> None:
    package = Path(wabiz_sim.__file__).parent
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}

    named = {line.split()[0] for line in (wabiz_sim.__doc__ or "").splitlines() if line.startswith("    ") and ".py" in line}

    assert named == modules


DATABASE = {
    "WA_DB_ENGINE": "PGSQL",
    "WA_DB_HOSTNAME": "db.example",
    "WA_DB_PORT": "5432",
    "WA_DB_USERNAME": "wabiz",
    "WA_DB_PASSWORD": "hidden-word-7",
}


def test_the_database_is_a_file_unless_the_clients_variables_name_a_server() -> None:
    assert Settings.from_env({}).database is None

    named = Settings.from_env({**DATABASE, "WA_DB_NAME_PREFIX": "acme_", "WABIZ_DB_TLS_DIR": "/tls"})

    assert named.database is not None
    assert (named.database.name, named.database.tls_dir) == ("acme_waweb", Path("/tls"))
    assert named.database.place == "database acme_waweb at db.example:5432"
    assert "hidden-word-7" not in repr(named)


def test_without_certificates_encryption_is_off_whatever_else_is_set() -> None:
    database = Settings.from_env({**DATABASE, "WA_DB_PERSISTENT": "1", "WA_DB_CONNECTION_IDLE_TIMEOUT": "180000"}).database

    assert database is not None
    parameters = database.parameters()
    assert (parameters["sslmode"], parameters["host"], database.name) == ("disable", "db.example", "waweb")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *((name, "", f"{name} is not set, but WA_DB_") for name in DATABASE),
        ("WA_DB_ENGINE", "MYSQL", "the simulator speaks PGSQL only"),
        ("WA_DB_ENGINE", "mysql", "the simulator speaks PGSQL only"),
        ("WA_DB_ENGINE", "pgsql", "is unknown"),
        ("WA_DB_PORT", "0", "not a port"),
        ("WA_DB_PORT", "pg", "not a port"),
        ("WA_DB_PERSISTENT", "yes", "must be 1 or 0"),
        ("WA_DB_CONNECTION_IDLE_TIMEOUT", "3s", "whole number of milliseconds"),
        ("WA_DB_NAME_PREFIX", "x" * 59, "58 bytes"),
        ("WA_DB_NAME_PREFIX", "a\nb", "makes no database name"),
    ],
)
def test_a_database_that_is_named_badly_is_refused_by_variable(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=name) as rejection:
        Settings.from_env({**DATABASE, name: value})

    assert said in str(rejection.value)
    assert "hidden-word-7" not in str(rejection.value)


@pytest.mark.parametrize("alone", ["WA_DB_NAME_PREFIX", "WABIZ_DB_TLS_DIR"])
def test_half_a_database_is_refused(alone: str) -> None:
    with pytest.raises(SettingsError, match=f"WA_DB_ENGINE is not set, but {alone} is"):
        Settings.from_env({alone: "x"})


@pytest.mark.parametrize("name", [*DATABASE, "WA_DB_NAME_PREFIX", "WA_DB_PERSISTENT", "WA_DB_CONNECTION_IDLE_TIMEOUT"])
def test_no_value_of_a_databases_variable_is_in_a_message(name: str) -> None:
    """All of them come from a Secret."""
    for value in ("canary-of-mine\n", "canary-of-mine" * 10):
        said = ""
        try:
            Settings.from_env({**DATABASE, name: value})
        except SettingsError as rejection:
            said = str(rejection)
        assert "canary" not in said
