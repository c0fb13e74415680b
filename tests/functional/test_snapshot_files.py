# SPDX-License-Identifier: Apache-2.0
"""Configuration documents as files: --config, what is wrong with one and how that is told, and --state, which keeps the
last good one."""
import contextlib
import json
import os
import random
import re
import signal
import socket
import stat
import subprocess
import time

import pytest

from harness import (EDGE, TIMEOUT, Edge, TcpOrigin, UdpOrigin, connect, echoes, free_port, free_ports, refused, udp_client,
                     wait_until)

# root without the right to read and write what the mode of a file forbids
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


class Served:
    """A TCP and a UDP origin, documents that forward to them, and flows that have to go on."""

    def __init__(self):
        self.tcp, self.udp = TcpOrigin(), UdpOrigin()
        self.port = free_port()
        self.flows = []

    def document(self, version=1, **more):
        return {"version": version,
                "origin_groups": [{"name": "echo", "origins": [{"address": "127.0.0.1", "port": self.tcp.port}]}],
                "rules": [{"protocol": "tcp", "edge_ports": [self.port], "origin": "og:echo", "origin_port": 1},
                          {"protocol": "udp", "edge_ports": [self.port], "origin": "127.0.0.1",
                           "origin_port": self.udp.port}],
                **more}

    def begin(self):
        self.flows += [connect(self.port), udp_client(self.port)]
        assert self.go_on()

    def go_on(self):
        """Whether the flows that run go on, and new ones are served."""
        with connect(self.port) as tcp, udp_client(self.port) as udp:
            return all(answered(s) for s in [*self.flows, tcp, udp])

    def end(self):
        for s in self.flows:
            s.close()
        self.flows = []


def answered(s):
    if s.type == socket.SOCK_STREAM:
        return echoes(s)
    s.send(b"datagram?")
    return s.recv(100) == b"datagram?"


@pytest.fixture(scope="module")
def stand():
    s = Served()
    with s.tcp, s.udp:
        yield s


@pytest.fixture
def served(stand):
    yield stand
    stand.end()


def text_of(document):
    return json.dumps({"schema": 1, **document})


def run_start(path, *args, prefix=()):
    """A start that is expected to fail: exit status and standard error."""
    done = subprocess.run([*prefix, EDGE, "--config", path, "--workers", "1", "--listen", "127.0.0.1", *map(str, args)],
                          capture_output=True, text=True, timeout=TIMEOUT)
    return done.returncode, done.stderr


def says(answer):
    """The faults that a refused reload is answered with."""
    first, *faults = answer.splitlines()
    assert first == "error refused, the old rules stay in force"
    assert faults
    return faults


# --- a document is served ---

def test_a_document_is_served_and_status_says_which(edge, served):
    e = edge(None, config=served.document(version=12))
    assert served.go_on()
    status = e.status()
    assert (status["version"], status["source"], status["last_good"], status["rules"]) == (12, str(e.config_path), False, 2)
    assert e.metric("config_version") == 12
    assert e.reload(config=served.document(version=4)).startswith("ok version 4 applied: 2 rules, ")
    assert e.status()["version"] == 4


def test_versions_are_counted_on_when_documents_have_none(edge, served):
    document = served.document()
    del document["version"]
    e = edge(None, config=document)
    assert [e.status()["version"], json.loads(e.control("config"))["version"]] == [1, 1]
    assert e.reload().startswith("ok version 2 applied")
    assert e.reload(config=served.document(version=40)).startswith("ok version 40 applied")
    assert e.reload(config=document).startswith("ok version 41 applied")


def everything(first):
    """A document with something of everything, in the order and the form in which it is written."""
    return {
        "version": 9007199254740991,
        "node": {"name": "koeln-1", "max_flows": 5000, "resolvers": ["127.0.0.1:5353", "[::1]:53"], "resolve_min": "2s"},
        "rule_defaults": {"idle_timeout": "5m", "client_max_flows": 200},
        "ip_lists": [{"name": "Office", "entries": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1", "::/0", "0.0.0.0/0"]},
                     {"name": "none", "entries": []}],
        "origin_groups": [
            {"name": "game", "algorithm": "source_hash", "all_down": "refuse", "slow_start": "30s", "passive_fails": 5,
             "health_check": {"type": "udp", "interval": "2s", "timeout": "1s", "rise": 1, "fall": 4, "send": "hex:00ff",
                              "expect": "pong"},
             "origins": [{"address": "127.0.0.1", "port": 7000, "weight": 10},
                         {"address": "::1", "port": 7000, "weight": 1, "enabled": False},
                         {"address": "spare.example.net", "port": 7001}]},
            {"name": "empty", "origins": []}],
        "proxies": [{"name": "login", "allow": ["Office"], "deny": ["none"]}],
        "rules": [
            {"id": "rule-game", "proxy": "login", "protocol": "udp", "edge_ports": [f"{first}-{first + 9}", first + 11],
             "origin": "og:game", "origin_port": 7000, "persistence": True, "pass": "spp", "tag": "das Spiel „1“ \\",
             "deny": ["none"], "settings": {"idle_timeout": "1h", "answers": 3}},
            {"protocol": "tcp", "edge_ports": [f"{first}-{first + 9}"], "origin": "og:empty",
             "origin_port": "8000-8009", "persistence": False, "pass": "ppv2"},
            {"protocol": "tcp", "edge_ports": [first + 10], "origin": "other.example.net", "origin_port": 80,
             "persistence": False, "pass": "off"}]}


def test_what_config_answers_can_be_fed_back(edge):
    document = everything(free_ports(12))
    e = edge(None, config=document)
    text = e.control("config")
    read = json.loads(text)
    assert re.fullmatch("[0-9a-f]{32}", read.pop("checksum")) and read.pop("schema") == 1
    assert read == document
    assert e.reload(config=text).startswith("ok version 9007199254740991 applied: 3 rules")
    assert e.control("config") == text
    e.stop_clean()
    again = edge(None, config=text)
    assert again.control("config") == text


def test_the_rules_of_a_rules_file_stand_in_what_config_answers(edge, served):
    more = free_port()
    e = edge(f"set rule idle_timeout=7m\ntcp:{more} og:echo 1 on off too\n", config=served.document())
    assert not refused(more)
    text = e.control("config")
    e.stop_clean()
    again = edge(None, config=text)
    assert not refused(more)
    assert again.control("config") == text
    assert json.loads(text)["rules"][2]["tag"] == "too" and json.loads(text)["rule_defaults"] == {"idle_timeout": "7m"}


# --- what is no document of ours ---

DAMAGES = {
    "missing": "No such file or directory",
    "a directory": "Is a directory",
    "unreadable": "Permission denied",
    "empty": ":1:1: no JSON: ",
    "truncated": ": no JSON: ",
    "a list": "a list: expected an object",
    "another schema": ": schema: 2: expected 1",
    "no schema": ": schema: missing: expected a whole number",
    "flipped": ": checksum: ",
    "binary": ":1:1: a NUL byte: expected text",
    "no UTF-8": ": no JSON: ",
    "100 MB": "bytes: expected at most 67108864",
    "too deep": ":1:17: lists and objects within each other: expected at most 16 levels",
    "too many lists": " lists and objects: expected at most 262144",
    "a member twice": ": no JSON: duplicate object key",
    "an unknown member": ": rule: unknown member: expected one of schema, version, ",
}


def damage(how, path, good):
    """Puts at path what is wrong in some way with a good document."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    if how == "missing":
        return
    if how == "a directory":
        path.mkdir()
        return
    if how == "100 MB":
        with open(path, "w") as f:
            f.write(good)
            f.truncate(100_000_000)
        return
    path.write_bytes({
        "unreadable": good, "empty": "", "truncated": good[:len(good) * 2 // 3], "a list": "[]",
        "another schema": good.replace('"schema": 1', '"schema": 2'), "no schema": '{"rules": []}',
        "flipped": good.replace('"version": 1', '"version": 3'), "binary": "\0\xff" * 5000,
        "no UTF-8": good.replace("schema", "sch\xebma", 1),
        "too deep": "[" * 100_000, "too many lists": "[" + "[]," * 300_000 + "[]]",
        "a member twice": good.replace('"schema": 1', '"schema": 1, "schema": 1'),
        "an unknown member": '{"schema": 1, "rule": []}'}[how].encode("latin-1"))
    if how == "unreadable":
        path.chmod(0)


def repair(path, good):
    if path.is_dir():
        path.rmdir()
    elif path.exists():
        path.unlink()
    path.write_text(good)


@pytest.fixture(scope="module")
def good(tmp_path_factory, stand):
    """The document as the edge writes it, with its checksum."""
    with Edge(tmp_path_factory.mktemp("good"), None, config=stand.document(), workers=1, metrics=False, log=False) as e:
        return e.control("config")


@pytest.mark.parametrize("how", DAMAGES)
def test_what_is_no_document_is_refused_at_the_start(tmp_path, good, how):
    path = tmp_path / "edge.json"
    damage(how, path, good)
    status, err = run_start(path, prefix=UNPRIVILEGED)
    assert status == 1
    assert err.startswith(str(path)) and DAMAGES[how] in err and len(err.splitlines()) == 1, err


@pytest.mark.parametrize("how", DAMAGES)
def test_what_is_no_document_is_refused_by_a_reload_and_flows_go_on(edge, served, good, how):
    e = edge(None, config=good)
    served.begin()
    damage(how, e.config_path, good)
    fault, = says(e.reload())
    assert fault.startswith(str(e.config_path)) and DAMAGES[how] in fault
    assert served.go_on()
    status = e.status()
    assert (status["version"], status["reloads"]["applied"], status["reloads"]["refused"]) == (1, 0, 1)
    assert e.metric("reloads_total", result="refused") == 1
    assert fault in e.stderr() and "reload refused, version 1 stays in force" in e.stderr()
    assert e.control("config") == good
    repair(e.config_path, good)
    assert e.reload().startswith("ok version 1 applied")
    assert served.go_on()


def cuts(text):
    return [len(text) * i // 12 for i in range(1, 12)] + [len(text) - 2]


def test_a_document_cut_off_anywhere_is_refused(tmp_path, edge, served, good):
    e = edge(None, config=good)
    served.begin()
    path = tmp_path / "cut.json"
    for length in cuts(good):
        path.write_text(good[:length])
        status, err = run_start(path)
        assert status == 1 and re.match(re.escape(str(path)) + r":\d+:\d+: no JSON: ", err), (length, err)
        fault, = says(e.reload(config=good[:length]))
        assert re.match(re.escape(str(e.config_path)) + r":\d+:\d+: no JSON: ", fault), (length, fault)
        assert served.go_on()
    assert e.status()["reloads"]["refused"] == len(cuts(good))


def test_a_document_with_one_wrong_bit_is_refused_whichever_it_is(edge, served, good):
    e = edge(None, config=good)
    served.begin()
    data, r = good.encode(), random.Random(11)
    assert data.endswith(b"}\n")
    at = data.index(b'"checksum"')
    bits = [*range(at * 8, (at + 10) * 8), *r.sample(range(len(data) * 8), 200)]
    for bit in bits:
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        e.config_path.write_bytes(wrong)
        assert says(e.reload()), (bit, wrong)
    assert e.status()["reloads"] == {**e.status()["reloads"], "applied": 0, "refused": len(bits)}
    assert served.go_on()
    assert e.reload(config=good).startswith("ok")


def test_a_checksum_holds_for_what_is_said_and_not_for_how_it_is_laid_out(edge, good):
    e = edge(None, config=good)
    assert e.reload(config=json.dumps(json.loads(good), indent=3)).startswith("ok")
    other = {**json.loads(good), "version": 2}
    fault, = says(e.reload(config=json.dumps(other)))
    right = re.fullmatch(re.escape(f'{e.config_path}: checksum: {other["checksum"]}: expected ') + "([0-9a-f]{32})", fault)[1]
    assert e.reload(config=json.dumps({**other, "checksum": right})).startswith("ok version 2")


# --- faults within a document ---

def rule(port, origin="127.0.0.1", protocol="tcp", **more):
    return {"protocol": protocol, "edge_ports": [port], "origin": origin, "origin_port": 80, **more}


WRONG_PORT = {"rules": [rule(81), rule(82), rule(83), rule(70000)]}
MANY_WRONG = {
    "ip_lists": [{"name": "bad", "entries": ["10.0.0.1/8", "nothing"]}],
    "origin_groups": [{"name": "web", "algorithm": "best", "origins": [{"address": "10.0.0.1", "port": 0}]},
                      {"name": "WEB", "origins": {}}],
    "proxies": [{"name": "login", "allow": ["good"]}],
    "rules": [rule(81), rule(81), rule(81, protocol="udp"), rule("83-82"), rule(84, "og:wep"),
              rule(85, proxy="logon", deny=["bat", "bad"]), rule(86, deny=["bad", "bad"]),
              rule(87, settings={"idle_timeout": "soon", "answers": 2}), rule(88, **{"pass": "spp"}),
              {"edge_ports": [], "protocol": "sctp"}],
    "extra": 1,
}
MANY_FAULTS = [
    "extra: unknown member: expected one of schema, version, checksum, node, rule_defaults, ip_lists, origin_groups, "
    "proxies, rules",
    'ip_lists[0].entries[0]: "10.0.0.1/8": expected no bit set behind the prefix, as in 10.0.0.0/8',
    'ip_lists[0].entries[1]: "nothing": expected an address or a prefix such as 10.0.0.0/8 or 2001:db8::/32',
    'proxies[0].allow[0]: "good": expected an IP list of the configuration document (there is none of that name)',
    "origin_groups[0].origins[0].port: 0: expected 1-65535",
    'origin_groups[1].name: "WEB": expected a name that no other has (origin_groups[0] has it)',
    "origin_groups[1].origins: an object: expected a list",
    'rules[4].origin: "og:wep": expected a group of the configuration document (there is none of that name; is it "web"?)',
    'rules[5].proxy: "logon": expected a proxy of the configuration document (there is none of that name; is it "login"?)',
    'rules[5].deny[0]: "bat": expected an IP list of the configuration document (there is none of that name; is it "bad"?)',
    'rules[6].deny[1]: "bad": expected each list once',
    'rules[9].protocol: "sctp": expected tcp or udp',
    "rules[9].edge_ports: an empty list: expected ports or ranges",
    "rules[9].origin: missing: expected text",
    "rules[1].edge_ports[0]: tcp port 81: expected a port that no other rule has (it belongs to rules[0])",
]
MANY_PLACES = {"origin_groups[0].algorithm", "rules[3].edge_ports[0]", "rules[7].settings.idle_timeout",
               "rules[7].settings.answers", "rules[8].pass", "rules[9].origin_port"}


def test_the_path_to_a_wrong_port_is_told_at_the_start_and_by_a_reload(tmp_path, edge, served):
    path = tmp_path / "wrong.json"
    path.write_text(text_of(WRONG_PORT))
    assert run_start(path) == (1, f"{path}: rules[3].edge_ports[0]: 70000: expected 1-65535\n")
    e = edge(None, config=served.document())
    served.begin()
    assert says(e.reload(config=WRONG_PORT)) == [f"{e.config_path}: rules[3].edge_ports[0]: 70000: expected 1-65535"]
    assert served.go_on()


def test_every_fault_of_a_document_is_told_at_once(tmp_path, edge, served):
    e = edge(None, config=served.document())
    served.begin()
    faults = says(e.reload(config=MANY_WRONG))
    assert all(f.startswith(f"{e.config_path}: ") for f in faults)
    faults = [f.removeprefix(f"{e.config_path}: ") for f in faults]
    assert [f for f in MANY_FAULTS if f not in faults] == []
    assert {f.partition(": ")[0] for f in faults if f not in MANY_FAULTS} == MANY_PLACES
    assert len(faults) == len(MANY_FAULTS) + len(MANY_PLACES)
    assert served.go_on()
    path = tmp_path / "wrong.json"
    path.write_text(text_of(MANY_WRONG))
    status, err = run_start(path)
    assert status == 1 and err == "".join(f"{path}: {f}\n" for f in faults)


def test_a_port_of_the_document_is_not_to_be_had_by_a_rules_file(edge, served):
    e = edge("", config=served.document())
    fault, = says(e.reload(f"tcp:{served.port} 127.0.0.1 80 off off\n"))
    assert fault == (f"{e.rules_path}:1:5: tcp port {served.port} already belongs to rules[0] of the configuration document")


def test_a_port_that_another_program_has_is_told_by_its_path_or_line(tmp_path, edge, served):
    port, more = free_ports(2), free_port()
    e = edge("", config=served.document())
    served.begin()
    with taken(port), taken(port + 1):
        document = served.document(version=2)
        document["rules"].append(rule(more, edge_ports=[more, port]))
        text = f"# nothing\ntcp:{port + 1} 127.0.0.1 80 off off\n"
        faults = says(e.reload(text, config=document))
        assert faults[0].startswith(f"{e.config_path}: rules[2].edge_ports[1]: tcp port {port} is in use by ")
        assert faults[1].startswith(f"{e.rules_path}:2:5: tcp port {port + 1} is in use by ")
        assert len(faults) == 2 and served.go_on()
        path = tmp_path / "taken.json"
        path.write_text(text_of(document))
        status, err = run_start(path)
        assert status == 1 and f"{path}: rules[2].edge_ports[1]: tcp port {port} is in use by " in err
    assert e.reload().startswith("ok version 2")


# --- the last good one ---

@pytest.fixture
def state(tmp_path):
    directory = tmp_path / "state"
    directory.mkdir()
    return directory


def kept(state):
    return (state / "snapshot.json").read_text()


def test_what_runs_is_kept_after_the_start_and_after_each_reload(edge, served, state):
    e = edge(None, "--state", state, config=served.document(version=3))
    wait_until(lambda: (state / "snapshot.json").exists(), what="the file")
    assert kept(state) == e.control("config") and json.loads(kept(state))["version"] == 3
    assert e.reload(config=served.document(version=4, node={"max_flows": 100})).startswith("ok")
    text = kept(state)
    assert text == e.control("config") and json.loads(text)["node"] == {"max_flows": 100}
    says(e.reload(config=WRONG_PORT))
    assert kept(state) == text
    assert os.listdir(state) == ["snapshot.json"]
    assert stat.S_IMODE((state / "snapshot.json").stat().st_mode) == 0o600


LAST_GOOD = "the last good configuration, version 7, is served instead, from --state "


@pytest.mark.parametrize("how", ["missing", "truncated", "a directory", "unreadable", "flipped", "an unknown member"])
def test_a_start_with_a_broken_document_serves_the_last_good_one_until_a_good_reload(edge, served, state, good, how):
    first = edge(None, "--state", state, config=served.document(version=7))
    first.stop_clean()
    before, inode = kept(state), (state / "snapshot.json").stat().st_ino
    path = state / "edge.json"
    damage(how, path, good)
    e = edge(None, "--state", state, "--config", path, prefix=UNPRIVILEGED)
    served.begin()
    errors = e.stderr()
    assert DAMAGES[how] in errors and f"warning: {LAST_GOOD}{state}" in errors
    assert errors.index(DAMAGES[how]) < errors.index(LAST_GOOD) < errors.index("ready: ")
    status = e.status()
    assert (status["version"], status["last_good"], status["source"]) == (7, True, str(path))
    assert kept(state) == before == e.control("config")
    assert (state / "snapshot.json").stat().st_ino == inode  # what is served from it is not written to it
    says(e.reload())
    assert e.status()["last_good"] is True and served.go_on()
    repair(path, text_of(served.document(version=8)))
    assert e.reload().startswith("ok version 8 applied")
    status = e.status()
    assert (status["version"], status["last_good"]) == (8, False)
    assert kept(state) == e.control("config") != before
    assert served.go_on()


def test_the_last_good_rules_of_a_rules_file_are_kept_too(edge, served, state):
    first = edge(f"set node max_flows=77\ntcp:{served.port} 127.0.0.1 {served.tcp.port} off off text\n", "--state", state)
    first.stop_clean()
    e = edge("nonsense\n", "--state", state)
    assert not refused(served.port)
    assert e.control("rules") == f"set node max_flows=77\ntcp:{served.port} 127.0.0.1 {served.tcp.port} off off text\n"
    assert (e.status()["last_good"], e.status()["version"]) == (True, 1)
    assert e.reload(f"tcp:{served.port} 127.0.0.1 {served.tcp.port} off off\n").startswith("ok version 2")
    assert e.status()["last_good"] is False


@pytest.mark.parametrize("of_state", ["missing", "truncated", "a directory", "flipped", "another schema", "100 MB"])
def test_without_any_good_document_a_start_fails_and_names_both_faults(tmp_path, state, good, of_state):
    path = tmp_path / "edge.json"
    path.write_text(text_of(WRONG_PORT))
    damage(of_state, state / "snapshot.json", good)
    status, err = run_start(path, "--state", state)
    lines = err.splitlines()
    assert status == 1 and len(lines) == 2
    assert lines[0] == f"{path}: rules[3].edge_ports[0]: 70000: expected 1-65535"
    assert lines[1].startswith(f"{state / 'snapshot.json'}") and DAMAGES[of_state] in lines[1]


def taken(port):
    """Another program that listens on a port."""
    return TcpOrigin(port=port)


@pytest.mark.parametrize("options", [["--no-bpf"], []], ids=["no-bpf", "steered"])
def test_why_the_last_good_document_cannot_be_served_is_told(tmp_path, edge, served, state, options):
    """Its rules are well, but a port of them is taken."""
    first = edge(None, "--state", state, config=served.document(version=7))
    first.stop_clean()
    path = tmp_path / "edge.json"
    path.write_text("no document")
    with taken(served.port):
        status, err = run_start(path, "--state", state, *options)
    assert status == 1
    assert LAST_GOOD in err and err.splitlines()[-1].startswith(
        f"{state}/snapshot.json: rules[0].edge_ports[0]: tcp port {served.port} is in use by "), err


@pytest.mark.parametrize("how, error", [("missing", "No such file or directory"), ("read-only", "Permission denied"),
                                        ("a file", "Not a directory")])
def test_a_state_directory_that_cannot_be_written_is_complained_of_and_no_more(edge, served, state, how, error):
    if how == "read-only":
        state.chmod(0o555)
    else:
        state.rmdir()
    if how == "a file":
        state.write_text("")
    complaint = f"error: --state {state}: the last good configuration could not be kept: {error}"
    e = edge(None, "--state", state, config=served.document())
    served.begin()
    wait_until(lambda: e.stderr().count(complaint) == 1, what="the complaint")
    assert e.reload(config=served.document(version=2)).startswith("ok version 2")
    assert e.stderr().count(complaint) == 2
    assert served.go_on() and e.status()["version"] == 2
    if how != "read-only":
        return
    state.chmod(0o755)
    assert e.reload().startswith("ok") and kept(state) == e.control("config")


@pytest.mark.parametrize("left", ["half of it", "", "a whole other one"])
def test_what_a_crash_left_unfinished_is_neither_read_nor_in_the_way(edge, served, state, good, left):
    first = edge(None, "--state", state, config=served.document(version=7))
    first.stop_clean()
    leftover = state / "snapshot.json.new"
    leftover.write_text(good[:len(good) // 2] if left == "half of it" else left and good)
    e = edge(None, "--state", state, config="broken")
    assert e.status()["version"] == 7 and served.go_on()
    assert e.reload(config=served.document(version=8)).startswith("ok")
    assert kept(state) == e.control("config") and json.loads(kept(state))["version"] == 8
    assert os.listdir(state) == ["snapshot.json"]


def send_reload(e):
    """Asks for a reload and does not wait for it."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(str(e.socket_path))
    s.sendall(b"reload\n")
    return s


@pytest.mark.slow
def test_a_crash_in_a_reload_always_leaves_a_file_that_loads(edge, served, state, tmp_path):
    """Killed as soon as the unfinished file is seen, or the finished one, or some time later, 30 times."""
    lists = [{"name": "long", "entries": [f"10.{i // 250}.{i % 250}.0/24" for i in range(20000)]}]
    r, unfinished, versions = random.Random(5), 0, set()
    for i in range(30):
        directory = tmp_path / f"crash{i}"
        directory.mkdir()
        # each start reads what the crash before it left: the present file is no document
        config = served.document(version=1, ip_lists=lists) if i == 0 else "broken"
        e = Edge(directory, None, "--state", state, "--no-bpf", config=config, workers=1, metrics=False, log=False)
        try:
            wait_until(lambda: (state / "snapshot.json").exists(), what="the file")
            now = e.status()["version"]
            if i:
                assert e.status()["last_good"] and now == json.loads(kept(state))["version"]
            before = (state / "snapshot.json").stat().st_ino
            e.write_config(served.document(version=i * 100 + 2, ip_lists=lists[:i % 4]))
            moment = [lambda: (state / "snapshot.json.new").exists(),
                      lambda: (state / "snapshot.json").stat().st_ino != before,
                      lambda until=time.monotonic() + r.uniform(0, 0.2): time.monotonic() > until][i % 3]
            deadline = time.monotonic() + 2  # the unfinished file may be missed
            with send_reload(e):
                while not moment() and time.monotonic() < deadline:
                    pass
                e.signal(signal.SIGKILL)
                e.process.wait()
        finally:
            e.process.kill()
            e.process.wait()
            e.process.stdout.close()
        unfinished += (state / "snapshot.json.new").exists()
        done = subprocess.run([EDGE, "--config", state / "snapshot.json", "--check"], capture_output=True, text=True,
                              timeout=TIMEOUT)
        assert done.returncode == 0, (i, done.stderr)
        version = json.loads(kept(state))["version"]
        assert version in (now, i * 100 + 2)
        versions.add(version)
    assert unfinished and len(versions) > 1  # it was hit in the middle, and at the end
