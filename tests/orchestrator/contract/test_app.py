"""The settings that Celery and kombu really use: they ignore a misspelled setting silently."""

import ssl
import sys

import pytest
from celery.app.defaults import NAMESPACES, flatten
from kombu.transport.redis import Channel

from orchestrator.contract.app import CONFIG, client_app, create_app
from orchestrator.contract.queues import ALL_QUEUES, KEY_PREFIX
from orchestrator.contract.server import CONNECT_TIMEOUT_S, SOCKET_TIMEOUT_S

URL = "redis://127.0.0.1:1/0"


def test_transport_options_reach_the_connection():
    connection = create_app(URL).connection()

    assert connection.transport_options == {
        "global_keyprefix": KEY_PREFIX,
        "ack_emulation": False,
        "priority_steps": [0],
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_connections": 20,
    }
    assert connection.connect_timeout == CONNECT_TIMEOUT_S


def test_every_transport_option_is_one_that_kombu_reads():
    options = create_app(URL).connection().transport_options

    assert options.keys() - set(Channel.from_transport_options) == set()


def test_every_setting_is_one_that_celery_reads():
    known = {name for name, _ in flatten(NAMESPACES)}

    assert CONFIG.keys() - known == set()


def test_every_setting_reaches_the_app():
    conf = create_app(URL).conf

    assert {name: conf[name] for name in CONFIG} == CONFIG


def test_only_json_is_sent_and_only_json_is_accepted():
    conf = create_app(URL).conf

    assert (conf.task_serializer, conf.result_serializer) == ("json", "json")
    assert list(conf.accept_content) == ["json"]
    assert list(conf.result_accept_content) == ["json"]


def test_children_are_spawned_and_have_the_time_to_import_torch():
    conf = create_app(URL).conf

    assert conf.worker_pool_start_method == "spawn"
    assert conf.worker_proc_alive_timeout >= 60


def test_the_queues_are_ours_and_no_other_comes_into_being():
    app = create_app(URL)

    assert tuple(app.amqp.queues) == ALL_QUEUES
    with pytest.raises(KeyError):
        app.amqp.queues["clasify"]


def test_a_worker_waits_for_its_server_for_as_long_as_it_takes():
    conf = create_app(URL).conf

    assert conf.broker_connection_retry_on_startup is True
    assert conf.broker_connection_max_retries is None
    assert conf.broker_channel_error_retry is True


def test_there_is_no_result_backend():
    conf = create_app(URL).conf

    assert conf.result_backend is None
    assert conf.task_ignore_result is True
    assert conf.task_acks_late is False


def test_a_worker_passes_the_modules_of_its_tasks():
    assert create_app(URL, include=("workers.tasks",)).conf.include == ["workers.tasks"]


def test_an_encrypted_server_must_prove_who_it_is():
    connection = create_app("rediss://h/0").connection()

    assert connection.ssl["ssl_cert_reqs"] == ssl.CERT_REQUIRED


def test_tasks_are_never_imported_from_the_operators_folder(tmp_path, monkeypatch):
    (tmp_path / "stray_tasks.py").write_text("raise SystemExit('this is not ours')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry])

    with pytest.raises(ModuleNotFoundError):
        create_app("redis://localhost/0").loader.import_task_module("stray_tasks")


def test_what_celery_keeps_for_a_server_does_not_grow_with_the_clients():
    before = client_app(URL).producer_pool._resource.qsize()

    for _ in range(3):
        client_app(URL).producer_pool.limit  # noqa: B018 making it adds to kombu's pool

    assert client_app(URL).producer_pool._resource.qsize() == before
