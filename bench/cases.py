# SPDX-License-Identifier: Apache-2.0
"""What is measured: the cases, the figures of each, and the bars that we have set ourselves.

A case is one of two kinds.  Traffic goes through contenders that have been started once for all of it.  The other
cases are about a contender as such (its start, its memory, a change of its rules) and start one of their own for each
run.  Either way a run makes a dictionary of figures, by the names of the case's columns.
"""
import contextlib
import dataclasses
import signal
import time

import machine
import places
from contenders import KERNEL, OURS, USER, DIRECT, Rule

GIB = 1 << 30
BULK_BYTES = 2 * GIB  # times --scale
BULK_LIMIT_S = 60
BULK_S = 1.3  # for a run, roughly
RUN_MARGIN_S = 30  # for one run beyond its own time
SETTLE_S = 0.25  # before and after a change of rules
CHANGE_LIMIT_S = 15


@dataclasses.dataclass
class Column:
    key: str
    title: str
    better: str = ""  # "low", "high", or neither
    spread: bool = False  # shown with smallest and largest


@dataclasses.dataclass
class Bar:
    """`kind`: "ratio" to the best peer, "ratio to NAME", or "value"; `limit` with "<=", "<" or ">="."""

    key: str
    kind: str
    relation: str
    limit: float
    contender: str = OURS
    topologies: tuple = ("loopback", "netns")


@dataclasses.dataclass
class Run:
    topology: str
    case: str
    contender: str
    round: int
    figures: dict
    errors: int = 0
    lost: int = 0
    failure: str = None
    answers: list = dataclasses.field(default_factory=list)  # of the clients, as they came


@dataclasses.dataclass
class Bench:
    """What runs have in common."""

    options: object
    load: object
    work: object
    softirq: list


ADDED = "added_us"


# ---- traffic ----


class Traffic:
    """`clients(options)`: the words of bench-load's clients, which run at the same time; the first is the one that is
    measured.  `units`: the work done, from its answer."""

    fresh = False

    def __init__(self, name, unit, rate_title, title, clients, units, rate, udp=False, port="plain", bars=(), default=True):
        self.name, self.unit, self.title, self.udp, self.port = name, unit, title, udp, port
        self.clients, self.units, self.rate, self.bars, self.default = clients, units, rate, list(bars), default
        self.main = ADDED
        self.columns = [
            Column(ADDED, f"added us/{unit}", "low", True), Column("machine_us", f"machine us/{unit}", "low"),
            Column("rate", rate_title, "high"), Column("p50_us", "p50 us", "low"), Column("p99_us", "p99 us", "low"),
            Column("others", "others"),
        ]

    def rules(self, ports):
        return [Rule(str(ports[self.port]), ports["origin"], udp=self.udp, header=self.port == "header",
                     once=self.port == "once", toa=self.port == "toa")]

    def takes(self, contender, ports):
        if contender.name == USER and not self.udp and not contender.tcp_fast:
            return False  # the same as ours
        return all(contender.able(rule) for rule in self.rules(ports))

    def expected_s(self, _contender, options):
        return self.clients_s(options) + 0.15

    def clients_s(self, options):
        words = self.clients(options)[0]
        times = [words[i + 1] for i, word in enumerate(words) if word in ("--seconds", "--warm-s")]
        return sum(times) if times else BULK_S * options.scale

    def figures(self, answers, busy_s, own_s):
        first = answers[0]
        units = self.units(first)
        return {
            "machine_us": busy_s / units * 1e6 if units else None,
            "rate": self.rate(first), "p50_us": first.get("p50_us"), "p99_us": first.get("p99_us"),
            "others": max(0.0, 1 - own_s / busy_s) if busy_s else None, "busy_s": busy_s,
        }

    def run(self, bench, contender, place, server, number, topology):
        """One run; raises Failure."""
        port = place.ports["origin"] if contender.name == DIRECT else place.ports[self.port]
        servers = [place.origin_server] + ([server] if server else [])
        for s in servers:
            if not s.running():
                raise places.Failure(f"{s.name} is not running any more: {s.last_words()}")
        until = time.monotonic() + RUN_MARGIN_S + BULK_LIMIT_S + bench.options.seconds
        clients, answers = [], []
        try:
            for words in reversed(self.clients(bench.options)):
                clients.insert(0, places.Client(bench.load, place, port, words, bench.work))
            line = clients[0].line(until)
            pids = [p for s in servers for p in s.pids()] + bench.softirq
            own, before = machine.process_seconds(pids), machine.cpu_seconds()
            if "measuring" in line:
                line = clients[0].line(until)
            answers = [line]
            after = machine.cpu_seconds()
            own = machine.process_seconds(pids) - own
            for client in clients[1:]:
                found = client.line(until)
                answers.append(client.line(until) if "measuring" in found else found)
            own += sum(a["cpu_s"] for a in answers)
        finally:
            complaints = [c.complaint() for c in clients]
            for client in clients:
                client.end()
        figures = {**self.figures(answers, after[0] - before[0], own), "stolen_s": after[2] - before[2]}
        return Run(topology, self.name, contender.name, number, figures, sum(a.get("errors", 0) for a in answers),
                   sum(a.get("lost", 0) for a in answers), None, answers + [c for c in complaints if c])


class Mixed(Traffic):
    """Requests beside bulk: what one costs the other."""

    def __init__(self):
        super().__init__("mixed", "request", "requests/s", "64-byte requests on 64 TCP connections beside a bulk stream",
                         mixed_clients, lambda a: a["requests"], lambda a: a["per_s"])
        self.main = "p99_us"
        self.columns = [
            Column("p99_us", "requests p99 us", "low", True), Column("p50_us", "requests p50 us", "low"),
            Column("rate", "requests/s", "high"), Column("mb_per_s", "bulk MB/s", "high", True), Column("others", "others"),
        ]

    def figures(self, answers, busy_s, own_s):
        return {**super().figures(answers, busy_s, own_s), "mb_per_s": answers[1]["mb_per_s"]}


def bulk(streams, direction):
    def command(options):
        each = max(1, int(BULK_BYTES * options.scale) // streams)
        return [["tcp-bulk", "--streams", streams, "--bytes", each, "--direction", direction, "--limit-s", BULK_LIMIT_S]]

    return command


def timed(*words):
    return lambda options: [[*words, "--seconds", options.seconds]]


def warmed(*words):
    return lambda options: [[*words, "--seconds", options.seconds, "--warm-s", options.warm]]


def mixed_clients(options):
    return [*warmed("tcp-rr", "--connections", 64)(options),
            ["tcp-bulk", "--streams", 1, "--bytes", 10**15, "--direction", "down",
             "--seconds", options.seconds + options.warm]]


def megabytes(answer):
    return answer["bytes"] / 1e6


def of(key):
    return lambda answer: answer[key]


def bulk_case(name, streams, direction, title, **more):
    return Traffic(name, "MB", "MB/s", title, bulk(streams, direction), megabytes, of("mb_per_s"), **more)


BULK_BARS = [Bar(ADDED, "ratio", "<=", 0.40), Bar("rate", "ratio", ">=", 1.4)]
RR_BARS = [Bar(ADDED, "ratio", "<=", 0.85), Bar("p99_us", "ratio", "<=", 1.0)]
CRR = ("connection", "connections/s", "connect, one 64-byte request, close; 16 at a time")
CRR_TRAFFIC = (timed("tcp-crr", "--concurrency", 16), of("connections"), of("per_s"))
UDP_RR = warmed("udp-rr", "--flows", 64, "--bytes", 64)
TRIP = ("round trip", "round trips/s")


# ---- contenders as such ----


class Fresh:
    """A case that starts a contender of its own for each run, and so takes only those that are programs."""

    fresh = True
    udp = False
    default = True
    names = ("haproxy", "haproxy-tuned", "nginx", "nginx-tuned", OURS)
    seconds = 1.5  # a run, roughly
    needs_private = True  # ports that others on this machine may have

    def takes(self, contender, _ports):
        return contender.name in self.names

    def expected_s(self, _contender, _options):
        return self.seconds

    def run(self, bench, contender, place, _server, number, topology):
        folder = bench.work.folder(f"{self.name}-{contender.name}")
        with contextlib.ExitStack() as stack:
            return Run(topology, self.name, contender.name, number,
                       *self.measure(bench, contender, place, folder, stack))


def start(bench, contender, place, folder, rules, stack, **more):
    """A contender that has not passed anything yet; it ends with the stack."""
    server = contender.start(folder, place, rules, bench.work, **more)
    stack.callback(server.stop)
    return server


class Ports(Fresh):
    """A range of ports: what opening it takes, and what it holds."""

    unit = "start"
    main = "pss_mb"
    columns = [
        Column("start_s", "start s", "low", True), Column("cpu_s", "CPU s", "low"), Column("fds", "descriptors", "low"),
        Column("pss_mb", "user memory MB", "low", True), Column("slab_mb", "kernel slab MB", "low", True),
    ]

    def __init__(self, name, first, count, title, protocols, names=None, bars=(), default=True):
        self.name, self.first, self.count, self.title, self.protocols = name, first, count, title, protocols
        self.names, self.bars, self.default = names or self.names, list(bars), default

    def measure(self, bench, contender, place, folder, stack):
        last = self.first + max(10, int(self.count * min(1, bench.options.scale))) - 1
        ports = f"{self.first}-{last}"
        rules = [Rule(ports, place.ports["origin"], udp=protocol == "udp") for protocol in self.protocols]
        slab, begin = machine.settled_slab_bytes(), time.monotonic()
        server = start(bench, contender, place, folder, rules, stack)
        for port in (self.first, last):
            places.wait_ready(contender.name, server, place, port, "udp" in self.protocols, tcp_too="tcp" in self.protocols)
        seconds, pids = time.monotonic() - begin, server.pids()
        return ({
            "start_s": seconds, "cpu_s": machine.process_seconds_with_children(pids), "fds": machine.descriptors(pids),
            "pss_mb": machine.pss_bytes(pids) / 1e6, "slab_mb": (machine.slab_bytes() - slab) / 1e6,
        },)


class Idle(Fresh):
    """Connections on which nothing happens."""

    name = "idle"
    needs_private = False
    title = "3,800 TCP connections after one small exchange each"
    unit = "connection"
    main = "flow_bytes"
    bars = [Bar("flow_bytes", "ratio", "<=", 0.2)]
    columns = [
        Column("flow_bytes", "user bytes/connection", "low", True), Column("pss_mb", "user memory MB", "low", True),
        Column("base_mb", "of it before", "low"), Column("slab_flow_bytes", "kernel slab bytes/connection", "low"),
    ]

    def measure(self, bench, contender, place, folder, stack):
        count = max(10, int(3800 * min(1, bench.options.scale)))
        port = place.ports["plain"]
        server = start(bench, contender, place, folder, [Rule(str(port), place.ports["origin"])], stack, flows=count)
        places.wait_ready(contender.name, server, place, port)
        before, slab = machine.pss_bytes(server.pids()), machine.settled_slab_bytes()
        client = places.Client(bench.load, place, port, ["tcp-idle", "--connections", count], bench.work)
        try:
            until = time.monotonic() + RUN_MARGIN_S
            client.line(until)
            answer = client.line(until)
            after, slab = machine.pss_bytes(server.pids()), machine.slab_bytes() - slab
        finally:
            complaint = client.complaint()
            client.end()
        return ({
            "flow_bytes": (after - before) / count, "pss_mb": after / 1e6, "base_mb": before / 1e6,
            "slab_flow_bytes": slab / count,
        }, answer["errors"], 0, None, [answer] + [complaint] * bool(complaint))


class Rules(Fresh):
    """Two thousand rules, and a change of one of them while other traffic runs."""

    name = "rules"
    title = "2,000 rules; one is changed by a reload while 64-byte requests run on 64 connections of another one"
    unit = "change"
    main = "change_ms"
    names = ("haproxy", "nginx", OURS)
    seconds = 3.5
    first = 10000
    bars = [Bar("change_ms", "value", "<=", 10), Bar("p99_ratio", "value", "<=", 1.10)]
    columns = [
        Column("load_s", "load s", "low", True), Column("change_ms", "change ms", "low", True),
        Column("p99_ratio", "p99 during / before", "low", True), Column("p99_before_us", "p99 before us", "low"),
        Column("p99_during_us", "p99 during us", "low"), Column("refused", "refused", "low"),
    ]

    def measure(self, bench, contender, place, folder, stack):
        count = max(10, int(2000 * min(1, bench.options.scale)))
        origin, last = place.ports["origin"], self.first + count - 1
        other = origin + 1
        rules = [Rule(str(port), origin) for port in range(self.first, last + 1)]
        second = places.start_origin(bench.load, bench.work, place.origin, "origin-2",
                                     "0.0.0.0" if place.forwards else place.origin_address, other)
        stack.callback(second.stop)
        begin = time.monotonic()
        server = start(bench, contender, place, folder, rules, stack, flows=64, reloads=True)
        places.wait_ready(contender.name, server, place, last)
        load_s = time.monotonic() - begin

        asked = Asker(place, last)
        client = places.Client(bench.load, place, self.first, ["tcp-rr", "--connections", 64, "--warm-s", 0.1,
                                                               "--seconds", 10 * CHANGE_LIMIT_S], bench.work)
        try:
            client.line(time.monotonic() + RUN_MARGIN_S)
            asked.until(lambda: asked.ends_by(max(0.1, min(1.0, bench.options.seconds))))
            if asked.answered(other):
                raise places.Failure("the origin to come answers already")
            contender.write(folder, place, [*rules[:-1], Rule(str(last), other)], 64)
            client.process.send_signal(signal.SIGUSR1)
            signalled = time.monotonic()
            contender.reload(server)
            asked.until(lambda: asked.settled(other))
            client.process.send_signal(signal.SIGUSR1)
            client.process.send_signal(signal.SIGTERM)
            answer = client.line(time.monotonic() + RUN_MARGIN_S)
        finally:
            complaint = client.complaint()
            client.end()
        before, during = (part["p99_us"] for part in answer["parts"][:2])
        return ({
            "load_s": load_s, "change_ms": (asked.since(other) - signalled) * 1e3, "p99_before_us": before,
            "p99_during_us": during, "p99_ratio": during / before if before else None, "refused": asked.refused,
        }, answer["errors"], 0, None, [answer] + [complaint] * bool(complaint))


class Asker:
    """A client that asks once a millisecond, each time on a new connection, which origin a port leads to."""

    def __init__(self, place, port):
        self.place, self.port = place, port
        self.heard = []  # (time, port of the origin)
        self.refused = 0
        self.began = time.monotonic()

    def until(self, condition):
        limit = time.monotonic() + CHANGE_LIMIT_S
        while not condition():
            if time.monotonic() > limit:
                raise places.Failure(f"the change was not in effect after {CHANGE_LIMIT_S} s")
            try:
                answer = places.tcp_question(self.place, self.port, b"W", 2)
                self.heard.append((time.monotonic(), int.from_bytes(answer, "big")))
                self.refused += len(answer) != 2
            except OSError:
                self.refused += 1
            time.sleep(0.001)

    def ends_by(self, seconds):
        return time.monotonic() > self.began + seconds

    def answered(self, origin):
        return any(port == origin for _, port in self.heard)

    def since(self, origin):
        """When the first answer of `origin` came after which no other one did; None if there was none."""
        found = None
        for when, port in reversed(self.heard):
            if port != origin:
                break
            found = when
        return found

    def settled(self, origin):
        since = self.since(origin)
        return since is not None and time.monotonic() > since + SETTLE_S


CASES = [
    bulk_case("tcp-bulk-1", 1, "down", "one TCP stream down", bars=BULK_BARS),
    bulk_case("tcp-bulk-8", 8, "down", "eight TCP streams down at once", bars=BULK_BARS),
    bulk_case("tcp-bulk-up", 1, "up", "one TCP stream up", default=False),
    Traffic("tcp-rr", "request", "requests/s", "64-byte requests on 64 kept TCP connections",
            warmed("tcp-rr", "--connections", 64), of("requests"), of("per_s"), bars=RR_BARS),
    Traffic("tcp-rr-1000", "request", "requests/s", "64-byte requests on 1,000 kept TCP connections",
            warmed("tcp-rr", "--connections", 1000), of("requests"), of("per_s"), bars=RR_BARS),
    Traffic("tcp-crr", *CRR, *CRR_TRAFFIC, bars=[Bar(ADDED, "ratio", "<=", 0.95)]),
    Traffic("udp-rr", *TRIP, "64 UDP flows, one 64-byte datagram in flight each", UDP_RR, of("requests"), of("per_s"),
            udp=True, bars=[Bar(ADDED, "ratio", "<=", 0.12), Bar(ADDED, "ratio", "<=", 0.50, USER),
                            Bar(ADDED, "ratio to " + KERNEL, "<", 1.0, topologies=("netns",))]),
    Traffic("udp-burst", *TRIP, "4 UDP flows, 32 datagrams of 1200 bytes in flight each",
            warmed("udp-rr", "--flows", 4, "--window", 32, "--bytes", 1200), of("requests"), of("per_s"),
            udp=True, bars=[Bar(ADDED, "ratio", "<=", 0.12), Bar(ADDED, "ratio", "<=", 0.40, USER)]),
    Traffic("udp-new", "session", "sessions/s", "a UDP session for each datagram and its answer; 16 at a time",
            timed("udp-new", "--concurrency", 16), of("sessions"), of("per_s"), udp=True, port="once"),
    Traffic("ppv2-tcp", CRR[0], CRR[1], "tcp-crr with a PROXY v2 header to the origin", *CRR_TRAFFIC, port="header"),
    Traffic("ppv2-udp", *TRIP, "udp-rr with a PROXY v2 header to the origin", UDP_RR, of("requests"), of("per_s"),
            udp=True, port="header"),
    Traffic("toa", CRR[0], CRR[1], "tcp-crr with the client's address in a TCP option", *CRR_TRAFFIC, port="toa"),
    Mixed(),
    Ports("ports", 10000, 10000, "10,000 TCP ports in one rule", ("tcp",),
          bars=[Bar("pss_mb", "ratio", "<=", 0.10), Bar("fds", "ratio", "<=", 0.01)]),
    Ports("ports-udp", 10000, 10000, "10,000 UDP ports in one rule", ("udp",), names=("nginx", "nginx-tuned", OURS),
          default=False),
    Ports("ports-60000", 5000, 60000, "60,000 TCP and 60,000 UDP ports in two rules", ("tcp", "udp"), names=(OURS,)),
    Rules(),
    Idle(),
]
