# SPDX-License-Identifier: Apache-2.0
"""Origin groups: how origins are chosen, and what happens when they die, stall, come back, are taken out and put in. The
origins are processes of their own, which the tests kill and stop."""
import collections
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from harness import (ROOT, TIMEOUT, connect, free_port, free_ports, how_it_ends, recv_exactly, refused, udp_client,
                     wait_metric, wait_until)

CHECK = {"type": "tcp", "interval": "200ms", "timeout": "150ms", "rise": 2, "fall": 2}


class OriginProcess:
    """tests/origin_process.py on an address; says its address to who asks."""

    def __init__(self, address, port, *args):
        self.address, self.port, self.args = address, port, args
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, os.path.join(ROOT, "tests", "origin_process.py"), self.address,
                                         str(self.port), *self.args])
        self.wait_up()

    def wait_up(self):
        def up():
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return True
            except OSError:
                return False
        wait_until(up, what=f"{self.address} to listen")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


@pytest.fixture
def origins():
    """make(count, *args) -> origins at 127.0.1.1, 127.0.1.2 … on one port."""
    made = []

    def make(count, *args, first=1):
        port = made[0].port if made else free_port()
        found = [OriginProcess(f"127.0.1.{first + i}", port, *args) for i in range(count)]
        made.extend(found)
        return found

    yield make
    for o in made:
        o.stop()


def ask(client):
    """Which origin a client is connected with."""
    client.sendall(b"who?\n")
    if client.type == socket.SOCK_STREAM:
        return recv_exactly(client, 16).decode().strip()
    return client.recv(100).decode()


def ask_new(port, source=None, protocol="tcp"):
    with (connect if protocol == "tcp" else udp_client)(port, source=source) as client:
        return ask(client)


def group_of(origins, name="game", check=CHECK, weights=None, **settings):
    return {"name": name, **({"health_check": check} if check else {}), **settings,
            "origins": [{"address": o.address, "port": o.port, "weight": (weights or {}).get(o.address, 100)}
                        for o in origins]}


def config_of(port, group, protocol="tcp", **rule):
    return {"origin_groups": [group],
            "rules": [{"protocol": protocol, "edge_ports": [port], "origin": "og:" + group["name"], "origin_port": 1,
                       **rule}]}


def wait_state(e, origin, state):
    key = f"{origin.address}:{origin.port}"
    wait_until(lambda: e.origins()[key]["state"] == state, what=f"{key} to be {state}, not {e.origins()[key]}")


def wait_checked(e, count):
    """Until every origin has been checked once: nothing is only assumed any more."""
    wait_until(lambda: sum(e.metric("origin_checks_total", origin=o) > 0 for o in e.origins()) == count,
               what="the first checks")


# --- choosing ---

def test_round_robin_follows_the_weights(edge, origins):
    port, os_ = free_port(), origins(3)
    weights = {os_[0].address: 50, os_[1].address: 20, os_[2].address: 30}
    edge(None, config=config_of(port, group_of(os_, check=None, weights=weights)), workers=1)
    seen = collections.Counter(ask_new(port) for _ in range(100))
    assert seen == {o.address: weights[o.address] for o in os_}


def test_least_connections_fills_up_whoever_has_the_fewest_for_its_weight(edge, origins):
    port, os_ = free_port(), origins(3)
    weights = {os_[0].address: 100, os_[1].address: 50, os_[2].address: 50}
    edge(None, config=config_of(port, group_of(os_, check=None, weights=weights, algorithm="least_connections")))
    clients = [connect(port) for _ in range(80)]
    names = [ask(c) for c in clients]
    assert collections.Counter(names) == {os_[0].address: 40, os_[1].address: 20, os_[2].address: 20}
    gone = [c for c, name in zip(clients, names) if name == os_[2].address]
    for c in gone:
        c.close()
    rest = [c for c in clients if c not in gone]
    names = []
    for _ in range(20):
        rest.append(connect(port))
        names.append(ask(rest[-1]))
    for c in rest:
        c.close()
    assert names.count(os_[2].address) >= 18  # one or two may be chosen before an end has been seen


def test_source_hash_keeps_clients_and_losing_an_origin_moves_only_its_own(edge, origins):
    port, os_ = free_port(), origins(4)
    clients = [f"127.3.{i % 9}.{i + 1}" for i in range(120)]
    e = edge(None, config=config_of(port, group_of(os_, algorithm="source_hash")))
    wait_checked(e, 4)
    homes = {c: ask_new(port, c) for c in clients}
    assert {c: ask_new(port, c) for c in clients} == homes
    assert min(collections.Counter(homes.values()).values()) >= 15  # 30 each on average
    os_[1].kill()
    wait_state(e, os_[1], "down")
    after = {c: ask_new(port, c) for c in clients}
    assert {c for c in clients if after[c] != homes[c]} == {c for c in clients if homes[c] == os_[1].address}
    assert len({after[c] for c in clients if homes[c] == os_[1].address}) == 3  # spread over all the others
    os_[1].start()
    wait_state(e, os_[1], "up")
    assert {c: ask_new(port, c) for c in clients} == homes


def test_a_rule_of_a_rules_file_names_a_group_of_the_document(edge, origins):
    port, os_ = free_port(), origins(2)
    e = edge(f"tcp:{port} og:game 1 off off from text\n", config={"origin_groups": [group_of(os_)]}, workers=1)
    assert {ask_new(port) for _ in range(4)} == {o.address for o in os_}
    assert e.control("rules") == f"tcp:{port} og:game 1 off off from text\n"


def test_an_origin_without_a_port_gets_the_rules_origin_port(edge, origins):
    ports, os_ = free_ports(2), origins(1)
    group = {"name": "plain", "origins": [{"address": os_[0].address}]}
    config = {"origin_groups": [group],
              "rules": [{"protocol": "tcp", "edge_ports": [f"{ports}-{ports + 1}"], "origin": "og:plain",
                         "origin_port": f"{os_[0].port - 1}-{os_[0].port}"}]}
    edge(None, config=config)
    assert ask_new(ports + 1) == os_[0].address
    assert refused(ports)


# --- health ---

def test_a_killed_origin_gets_no_flows_after_fall_intervals_and_no_client_notices(edge, origins):
    port, os_ = free_port(), origins(3)
    e = edge(None, config=config_of(port, group_of(os_, passive_fails=0)))
    wait_checked(e, 3)
    os_[0].kill()
    killed = time.monotonic()
    while time.monotonic() - killed < 3 * 0.22 + 0.3:  # fall 2, and a tenth more for the jitter
        assert ask_new(port) != os_[0].address  # tried again elsewhere when it was chosen
    assert e.origins()[f"{os_[0].address}:{os_[0].port}"]["state"] == "down"
    retries = e.metric("connect_retries_total")
    assert retries > 0
    for _ in range(30):
        assert ask_new(port) != os_[0].address
    assert e.metric("connect_retries_total") == retries  # it is not even tried
    state = e.origins()[f"{os_[0].address}:{os_[0].port}"]
    assert state["reason"] == "connect_refused"
    assert e.metric("origin_up", origin=f"{os_[0].address}:{os_[0].port}", group="game") == 0
    assert e.metric("origin_up", group="game") == 2
    assert f"origin {os_[0].address}:{os_[0].port} is down" in e.stderr()
    os_[0].start()
    wait_state(e, os_[0], "up")
    assert f"origin {os_[0].address}:{os_[0].port} is up again" in e.stderr()
    wait_until(lambda: ask_new(port) == os_[0].address, what="flows to it again")
    assert e.metric("origin_changes_total", origin=f"{os_[0].address}:{os_[0].port}") == 2
    assert 0 < e.metric("origin_check_seconds", origin=f"{os_[1].address}:{os_[1].port}") < 0.15
    assert {f["end"] for f in e.flows()} == {"done"}


def test_failed_connects_mark_an_origin_down_before_the_next_check(edge, origins):
    port, os_ = free_port(), origins(2)
    check = {**CHECK, "interval": "30s"}
    e = edge(None, config=config_of(port, group_of(os_, check=check, passive_fails=3)), workers=1)
    os_[0].kill()
    for _ in range(12):
        assert ask_new(port) == os_[1].address
    wait_state(e, os_[0], "down")
    assert e.metric("connect_retries_total") == 3
    assert e.origins()[f"{os_[0].address}:{os_[0].port}"]["reason"] == "passive_connect"


def test_an_origin_that_is_stopped_fails_a_udp_check(edge, origins):
    port, os_ = free_port(), origins(2)
    check = {**CHECK, "type": "udp", "send": "hex:77686f3f", "expect": "127.0.1."}
    e = edge(None, config=config_of(port, group_of(os_, check=check), protocol="udp"), workers=1)
    wait_checked(e, 2)
    os_[0].signal(signal.SIGSTOP)
    wait_state(e, os_[0], "down")
    assert e.origins()[f"{os_[0].address}:{os_[0].port}"]["reason"] == "no_answer"
    assert {ask_new(port, protocol="udp") for _ in range(8)} == {os_[1].address}
    os_[0].signal(signal.SIGCONT)
    wait_state(e, os_[0], "up")
    wait_until(lambda: ask_new(port, protocol="udp") == os_[0].address, what="sessions on it again")


def test_a_wrong_answer_fails_a_udp_check(edge, origins):
    port, os_ = free_port(), origins(2)
    check = {**CHECK, "type": "udp", "send": "ping", "expect": "127.0.1.2"}
    e = edge(None, config=config_of(port, group_of(os_, check=check), protocol="udp"))
    wait_state(e, os_[0], "down")
    assert e.origins()[f"{os_[0].address}:{os_[0].port}"]["reason"] == "wrong_answer"
    assert e.origins()[f"{os_[1].address}:{os_[1].port}"]["state"] == "up"


def test_a_udp_check_without_expectation_fails_by_icmp_only(edge, origins):
    port, os_ = free_port(), origins(2)
    check = {**CHECK, "type": "udp"}
    e = edge(None, config=config_of(port, group_of(os_, check=check), protocol="udp"))
    os_[0].signal(signal.SIGSTOP)
    os_[1].kill()
    wait_state(e, os_[1], "down")
    assert e.origins()[f"{os_[1].address}:{os_[1].port}"]["reason"] == "connect_refused"
    wait_checked(e, 2)
    assert e.origins()[f"{os_[0].address}:{os_[0].port}"]["state"] == "up"


def test_an_origin_that_answers_late_fails_a_check_with_a_shorter_timeout(edge, origins):
    port = free_port()
    late, = origins(1, "--late", "0.5")
    prompt, = origins(1, first=2)
    check = {**CHECK, "type": "udp", "send": "ping", "expect": "127.0.1."}
    e = edge(None, config=config_of(port, group_of([late, prompt], check=check), protocol="udp"))
    wait_state(e, late, "down")
    assert e.origins()[f"{late.address}:{late.port}"]["reason"] == "no_answer"
    assert e.origins()[f"{prompt.address}:{prompt.port}"]["state"] == "up"


def test_one_origin_in_two_groups_is_probed_once(edge, origins):
    ports, os_ = free_ports(2), origins(2)
    one, two = group_of(os_[:1], "one"), group_of(os_[:1], "two")
    other = group_of(os_[1:], "other", check={**CHECK, "rise": 3})
    config = {"origin_groups": [one, two, other],
              "rules": [{"protocol": "tcp", "edge_ports": [ports + i], "origin": "og:" + n, "origin_port": 1}
                        for i, n in enumerate(["one", "two"])]}
    e = edge(None, config=config)
    key = f"{os_[0].address}:{os_[0].port}"
    wait_until(lambda: e.metric("origin_checks_total", group="one") >= 8, what="checks")
    text = e.metrics_text()
    counts = {g: float(line.rsplit(" ", 1)[1]) for g in ("one", "two") for line in text.splitlines()
              if line.startswith(f'tidegate_origin_checks_total{{group="{g}",origin="{key}"')}
    assert counts["one"] == counts["two"]
    os_[0].kill()
    wait_until(lambda: e.metric("origin_up", origin=key) == 0, what="both to be down")


@pytest.mark.parametrize("policy", ["use_all", "refuse"])
def test_all_down(edge, origins, policy):
    port, os_ = free_port(), origins(2)
    e = edge(None, config=config_of(port, group_of(os_, all_down=policy)))
    wait_checked(e, 2)
    for o in os_:
        o.kill()
    for o in os_:
        wait_state(e, o, "down")
    assert refused(port)
    end = e.wait_flows(1)[-1]["end"]
    assert end == ("connect_refused" if policy == "use_all" else "all_down")
    os_[1].start()
    wait_until(lambda: not refused_quick(port), what="flows after the recovery")


def refused_quick(port):
    try:
        return not ask_new(port)
    except (OSError, AssertionError):
        return True


def test_slow_start_brings_an_origin_back_little_by_little(edge, origins):
    port, os_ = free_port(), origins(2)
    e = edge(None, config=config_of(port, group_of(os_, slow_start="4s")), workers=1)
    wait_checked(e, 2)
    os_[0].kill()
    wait_state(e, os_[0], "down")
    os_[0].start()
    wait_state(e, os_[0], "up")
    began = time.monotonic()
    early = collections.Counter(ask_new(port) for _ in range(60))
    assert time.monotonic() - began < 1.5
    assert early[os_[0].address] <= 12  # less than a quarter of the ramp is over: less than a fifth of the flows
    wait_until(lambda: time.monotonic() - began > 4.2, what="the ramp to end")
    late = collections.Counter(ask_new(port) for _ in range(60))
    assert abs(late[os_[0].address] - 30) <= 3


# --- session persistence ---

def test_a_client_keeps_its_origin_over_rules_reloads_and_changes_of_others(edge, origins):
    ports, os_ = free_ports(3), origins(4)
    clients = [f"127.4.0.{i}" for i in range(1, 40)]

    def config(members, **settings):
        return {"origin_groups": [group_of(members, **settings)], "proxies": [{"name": "login"}, {"name": "chat"}],
                "rules": [{"proxy": proxy, "protocol": "tcp", "edge_ports": [ports + i], "origin": "og:game",
                           "origin_port": 1, "persistence": "on"}
                          for i, proxy in enumerate(["login", "login", "chat"])]}

    e = edge(None, config=config(os_[:3]))
    wait_checked(e, 3)
    homes = {c: ask_new(ports, c) for c in clients}
    assert set(homes.values()) == {o.address for o in os_[:3]}
    assert {c: ask_new(ports + 1, c) for c in clients} == homes  # another rule of the proxy
    others = {c: ask_new(ports + 2, c) for c in clients}  # another proxy chooses for itself
    assert others != homes
    assert e.reload(config=config(os_, weights={os_[0].address: 1})).startswith("ok")
    assert {c: ask_new(ports, c) for c in clients} == homes
    lost = {c for c in clients if homes[c] == os_[1].address}
    os_[1].kill()
    wait_state(e, os_[1], "down")
    moved = {c: ask_new(ports, c) for c in clients}
    assert {c for c in clients if moved[c] != homes[c]} == lost
    os_[1].start()
    wait_state(e, os_[1], "up")
    assert {c: ask_new(ports, c) for c in clients} == moved  # the new choice sticks
    assert e.reload(config=config([os_[0], os_[2], os_[3]])).startswith("ok")
    assert {c: ask_new(ports, c) for c in clients} == moved


def test_persistence_is_bounded_and_forgets_who_was_absent_longest(edge, origins):
    port, os_ = free_port(), origins(2)
    e = edge(None, config={"node": {"persistence_clients": 1024}, **config_of(port, group_of(os_, check=None),
                                                                              persistence="on")})
    for i in range(3000):
        ask_new(port, source=f"127.5.{i // 250}.{i % 250 + 1}")
    wait_until(lambda: e.metric("persistence_evictions_total") > 0, what="evictions")
    assert e.metric("persistence_full_total") == 0


# --- failover of UDP sessions ---

@pytest.mark.parametrize("fast", ["on", "off"])
def test_a_session_moves_when_its_origin_is_down_and_the_new_one_gets_the_header(edge, origins, fast):
    port, os_ = free_port(), origins(2)
    check = {**CHECK, "type": "udp", "send": "ping", "expect": "127.0.1."}
    config = config_of(port, group_of(os_, check=check), protocol="udp", **{"pass": "ppv2"})
    config["node"] = {"udp_fast_path": fast}
    e = edge(None, config=config, workers=1)
    wait_checked(e, 2)
    with udp_client(port) as client:
        first = ask(client)
        assert first.startswith("ppv2 127.0.1.")
        assert all(ask(client) == first[5:] for _ in range(20))
        home = next(o for o in os_ if o.address == first[5:])
        other = next(o for o in os_ if o is not home)
        home.signal(signal.SIGSTOP)  # no ICMP: only the check can tell
        wait_state(e, home, "down")
        assert ask(client) == "ppv2 " + other.address
        assert ask(client) == other.address
        home.signal(signal.SIGCONT)
        wait_state(e, home, "up")
        assert ask(client) == other.address  # a session keeps its origin
    assert e.metric("udp_sessions_moved_total") == 1


def test_a_session_on_the_fast_path_moves_too(edge, origins):
    port, os_ = free_port(), origins(2)
    check = {**CHECK, "type": "udp", "send": "ping", "expect": "127.0.1."}
    e = edge(None, config=config_of(port, group_of(os_, check=check), protocol="udp"), workers=1)
    wait_checked(e, 2)
    with udp_client(port) as client:
        home = next(o for o in os_ if o.address == ask(client))
        other = next(o for o in os_ if o is not home)
        wait_until(lambda: ask(client) and e.metric("udp_fast_sessions_total") == 1, what="the fast path")
        assert all(ask(client) == home.address for _ in range(20))
        home.signal(signal.SIGSTOP)
        wait_state(e, home, "down")
        wait_until(lambda: ask_or_nothing(client) == other.address, what="the other origin's answer")
        assert all(ask(client) == other.address for _ in range(20))


def ask_or_nothing(client):
    client.settimeout(0.2)
    try:
        return ask(client)
    except TimeoutError:
        return None
    finally:
        client.settimeout(TIMEOUT)


# --- drain ---

@pytest.mark.parametrize("how", ["removed", "disabled", "weight 0"])
def test_an_origin_taken_out_gets_no_new_flow_and_its_flows_end_with_the_drain_time(edge, origins, how):
    port, os_ = free_port(), origins(2)
    config = config_of(port, group_of(os_))
    e = edge(None, config=config, drain=2)
    held = [connect(port) for _ in range(8)]
    names = [ask(c) for c in held]
    assert set(names) == {o.address for o in os_}
    out = config["origin_groups"][0]["origins"]
    if how == "removed":
        del out[0]
    elif how == "disabled":
        out[0]["enabled"] = False
    else:
        out[0]["weight"] = 0
    assert e.reload(config=config).startswith("ok")
    assert {ask_new(port) for _ in range(8)} == {os_[1].address}
    assert [ask(c) for c in held] == names  # within the drain time they go on
    ended = [c for c, name in zip(held, names) if name == os_[0].address]
    assert {how_it_ends(c) for c in ended} == {"reset"}
    flows = e.wait_flows(len(ended), end="origin_removed")
    assert {f["origin"] for f in flows} == {f"{os_[0].address}:{os_[0].port}"} and len(flows) == len(ended)
    assert {ask(c) for c, name in zip(held, names) if name != os_[0].address} == {os_[1].address}
    for c in held:
        c.close()


def test_an_origin_put_back_in_time_keeps_its_flows(edge, origins):
    port, os_ = free_port(), origins(2)
    e = edge(None, config=config_of(port, group_of(os_)), drain=1)
    held = [connect(port) for _ in range(4)]
    names = [ask(c) for c in held]
    assert e.reload(config=config_of(port, group_of(os_[1:]))).startswith("ok")
    assert e.reload(config=config_of(port, group_of(os_))).startswith("ok")
    deadline = time.monotonic() + 1.5
    wait_until(lambda: time.monotonic() > deadline, what="the drain time to pass")
    assert [ask(c) for c in held] == names
    for c in held:
        c.close()


def test_scaling_up_and_down_under_load_loses_no_connection(edge, origins):
    port, os_ = free_port(), origins(4)
    e = edge(None, config=config_of(port, group_of(os_)), drain=20)
    stop, failures, done = threading.Event(), [], collections.Counter()

    def client(number):
        while not stop.is_set():
            try:
                with connect(port) as c:
                    names = {ask(c) for _ in range(5)}
                    assert len(names) == 1
                done[names.pop()] += 1
            except (OSError, AssertionError) as error:
                failures.append((number, repr(error)))
                return

    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for members in ([0, 1, 2, 3], [0], [1, 2], [3, 0], [0, 1, 2, 3], [2], [0, 1, 2, 3]) * 3:
        before = sum(done.values())
        assert e.reload(config=config_of(port, group_of([os_[i] for i in members]))).startswith("ok")
        wait_until(lambda: sum(done.values()) >= before + 40 or failures, what="more connections")
    stop.set()
    for t in threads:
        t.join()
    assert failures == []
    assert set(done) == {o.address for o in os_}
    wait_metric(e, 0, "flows_active")
    assert {f["end"] for f in e.flows()} == {"done"}


# --- IP lists ---

def test_ip_lists_of_proxy_and_rule_decide_before_an_origin_is_touched(edge, origins):
    ports, os_ = free_ports(4), origins(1)
    config = {
        "ip_lists": [{"name": "lab", "entries": ["127.0.0.0/8"]}, {"name": "bad", "entries": ["127.6.0.0/16"]},
                     {"name": "good", "entries": ["127.6.1.0/24", "127.6.2.2"]},
                     {"name": "same", "entries": ["127.6.1.0/24"]}],
        "origin_groups": [group_of(os_, check=None)],
        "proxies": [{"name": "p", "deny": ["bad"]}, {"name": "q", "deny": ["bad"], "allow": ["good"]}],
        "rules": [
            {"proxy": "p", "protocol": "tcp", "edge_ports": [ports], "origin": "og:game", "origin_port": 1},
            {"proxy": "q", "protocol": "tcp", "edge_ports": [ports + 1], "origin": "og:game", "origin_port": 1},
            {"proxy": "p", "protocol": "tcp", "edge_ports": [ports + 2], "origin": "og:game", "origin_port": 1,
             "allow": ["good"]},
            {"protocol": "udp", "edge_ports": [ports + 3], "origin": "og:game", "origin_port": 1,
             "allow": ["lab", "good"], "deny": ["bad", "same"]}]}
    e = edge(None, config=config)

    def admitted(port, source, protocol="tcp"):
        try:
            return ask_new(port, source, protocol) == os_[0].address
        except (OSError, AssertionError):
            return False

    #                                     p      q      p and good
    for source, verdicts in [("127.0.0.9", (True, False, False)), ("127.6.9.9", (False, False, False)),
                             ("127.6.1.9", (False, True, False)), ("127.6.2.2", (False, True, False)),
                             ("127.6.2.3", (False, False, False))]:
        assert tuple(admitted(ports + i, source) for i in range(3)) == verdicts, source
    assert e.metric("flows_ended_total", end="denied") == 15 - 3
    assert e.metric("origin_flows_total") == 3
    assert admitted(ports + 3, "127.0.0.9", "udp") and admitted(ports + 3, "127.6.2.2", "udp")
    for source in ("127.6.1.9", "127.6.3.3"):  # deny wins at equal length; the longer prefix at others
        with udp_client(ports + 3, source=source) as c:
            c.send(b"let me in")
    wait_metric(e, 2, "datagrams_dropped_total", reason="refused")
