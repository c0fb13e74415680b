# SPDX-License-Identifier: Apache-2.0
"""Who is compared, and how each is told what to forward."""
import dataclasses
import os
import pathlib
import resource
import shutil
import signal
import subprocess

import places

NGINX_STREAM = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")
SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin"

OURS = "tidegate"
USER = "tidegate-user"
DIRECT = "direct"
KERNEL = "nft"

# Tuned for speed alone: what each is best at here, whatever it costs in memory.  Buffers of 64 KiB were tried and lost
# to large ones on loopback, in HAProxy and in nginx alike.
BUFFER_BYTES = 1 << 20


def program(name):
    return shutil.which(name, path=SEARCH_PATH)


def files_max():
    """Descriptors a contender may have; bench/run raises its own limit to this for all of them."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 20000 if hard == resource.RLIM_INFINITY else min(20000, hard)


@dataclasses.dataclass
class Rule:
    """Forward `ports` ("N" or "N-M") to one port of the origin."""

    ports: str
    origin_port: int
    udp: bool = False
    header: bool = False  # a PROXY v2 header tells the origin who the client is
    once: bool = False  # a session ends with its answer
    toa: bool = False

    def count(self):
        first, _, last = self.ports.partition("-")
        return int(last or first) - int(first) + 1


class Contender:
    name = ""
    udp = True  # carries UDP
    header = ()  # of "tcp", "udp": those with which it sends a PROXY v2 header
    needs_root = False

    def missing(self, _options):
        """Why it cannot take part, or None."""
        return None

    def able(self, rule):
        return (self.udp or not rule.udp) and (not rule.header or ("udp" if rule.udp else "tcp") in self.header) \
            and not rule.toa

    def write(self, folder, place, rules, flows):
        """The configuration; `flows` is how many at a time are expected."""

    def command(self, folder, place, reloads):
        raise NotImplementedError

    def start(self, folder, place, rules, work, flows=0, reloads=False):
        """`rules`: those it is able to serve.  `reloads`: reload() will be called."""
        self.write(folder, place, rules, flows)
        return places.Server(self.name, self.command(folder, place, reloads), folder, place.edge, work)

    def reload(self, server):
        server.signal(signal.SIGHUP)


class Direct(Contender):
    name = DIRECT
    header = ("tcp", "udp")  # it is what headers are compared with

    def able(self, rule):
        return True


class Haproxy(Contender):
    udp = False
    header = ("tcp",)

    def __init__(self, name, tuned=False, splice=False):
        self.name, self.tuned, self.splice = name, tuned, splice

    def missing(self, _options):
        return None if program("haproxy") else "haproxy is not installed"

    def write(self, folder, place, rules, flows):
        more = f"""
    maxconn {(files_max() - sum(r.count() for r in rules)) // 2 - 100}
    tune.bufsize {BUFFER_BYTES}""" if self.tuned else ""
        smart = """
    option tcp-smart-accept
    option tcp-smart-connect""" if self.tuned else ""
        if self.splice:
            smart += "\n    option splice-auto"
        text = f"""\
global
    nbthread 1{more}

defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m{smart}
"""
        for i, rule in enumerate(rules):
            text += f"""
listen bench{i}
    bind {place.edge_address}:{rule.ports}
    server origin {place.origin_address}:{rule.origin_port}{' send-proxy-v2' if rule.header else ''}
"""
        (folder / "haproxy.cfg").write_text(text)

    def command(self, folder, _place, reloads):
        return [program("haproxy"), *(["-W"] if reloads else []), "-db", "-f", folder / "haproxy.cfg"]

    def reload(self, server):
        server.signal(signal.SIGUSR2)


class Nginx(Contender):
    def __init__(self, name, tuned=False):
        self.name, self.tuned = name, tuned

    def missing(self, _options):
        if not program("nginx"):
            return "nginx is not installed"
        return None if NGINX_STREAM.exists() else f"{NGINX_STREAM} is missing (package libnginx-mod-stream)"

    def write(self, folder, place, rules, flows):
        # UDP sessions of earlier runs live until proxy_timeout, so even the plain one gets more than
        # the 768 connections of Debian's file; otherwise it would refuse flows after a few rounds.
        connections = max(4096, sum(r.count() for r in rules) + 2 * flows + 1000)
        main = f"worker_rlimit_nofile {files_max()};" if self.tuned else ""
        events = f"worker_connections {files_max()}; multi_accept on;" if self.tuned \
            else f"worker_connections {connections};"
        tcp = " reuseport backlog=4096" if self.tuned else ""
        udp = " reuseport rcvbuf=4m sndbuf=4m" if self.tuned else ""
        stream = f"proxy_buffer_size {BUFFER_BYTES};" if self.tuned else ""
        servers = ""
        for rule in rules:
            more = "proxy_timeout 20s;" if rule.udp else ""
            if rule.once:
                more += " proxy_responses 1;"
            servers += f"""
    server {{
        listen {place.edge_address}:{rule.ports}{' udp' + udp if rule.udp else tcp};
        proxy_pass {place.origin_address}:{rule.origin_port};
        {more}
    }}"""
        (folder / "nginx.conf").write_text(f"""\
load_module {NGINX_STREAM};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{main}
events {{ {events} }}
stream {{
    {stream}{servers}
}}
""")

    def command(self, folder, _place, _reloads):
        return [program("nginx"), "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"]


class Tidegate(Contender):
    header = ("tcp", "udp")

    def __init__(self, name, fast=True):
        self.name, self.fast = name, fast
        self.edge = None
        self.tcp_fast = self.toa = False  # whether the edge knows them

    def missing(self, options):
        self.edge = options.edge.resolve()
        if not os.access(self.edge, os.X_OK):
            return f"{options.edge}: no such program; build it or name another one with --edge"
        self.tcp_fast = self._accepts("set node tcp_fast_path=off\n")
        self.toa = self._accepts("tcp:1024 127.0.0.1 80 off toa\n")
        return None

    def _accepts(self, text):
        done = subprocess.run([self.edge, "--check", "--rules", "/dev/stdin"], input=text, text=True,
                              capture_output=True, check=False)
        return done.returncode == 0

    def able(self, rule):
        if not self.fast and (rule.header or rule.once or rule.toa):
            return False  # user space has these in any case
        return not rule.toa or self.toa

    def write(self, folder, place, rules, flows):
        text = ""
        if not self.fast:
            text = "set node udp_fast_path=off" + (" tcp_fast_path=off" if self.tcp_fast else "") + "\n"
        for rule in rules:
            how = "ppv2" if rule.header else "toa" if rule.toa else "off"
            text += f"{'udp' if rule.udp else 'tcp'}:{rule.ports} {place.origin_address} {rule.origin_port} off {how}" \
                + (" answers=1 client_new_flows_per_s=0" if rule.once else "") + "\n"
        (folder / "new.rules").write_text(text)
        os.replace(folder / "new.rules", folder / "bench.rules")

    def command(self, folder, place, _reloads):
        # its flow log stays on, as it would in service; the peers write none by default
        return [self.edge, "--rules", folder / "bench.rules", "--listen", place.edge_address, "--workers", "1",
                "--drain", "1", "--log", folder / "flow.log"]


class NftServer:
    """A table in the namespace of a contender; looks like a server that takes nothing."""

    def __init__(self, place):
        self.place = place
        self.process = None

    def running(self):
        return True

    def pids(self):
        return []

    def last_words(self):
        return "(rules of the kernel)"

    def stop(self):
        with self.place.edge.inside():
            subprocess.run([program("nft"), "delete", "table", "ip", "bench"], capture_output=True, check=False)


class Nft(Contender):
    """What the kernel does by itself: destination and source NAT with connection tracking, no balancing, no checks."""

    name = KERNEL
    needs_root = True

    def missing(self, _options):
        if os.geteuid() != 0:
            return "needs root"
        return None if program("nft") else "nft is not installed"

    def start(self, folder, place, rules, work, flows=0, reloads=False):
        maps = "\n".join(f"ip daddr {place.edge_address} {'udp' if r.udp else 'tcp'} dport {r.ports} "
                         f"dnat to {place.origin_address}:{r.origin_port}" for r in rules)
        hook = "prerouting" if place.forwards else "output"
        source = f"""
            chain source {{
                type nat hook postrouting priority 100;
                ip daddr {place.origin_address} masquerade
            }}""" if place.forwards else ""
        # closed connections and sessions of one datagram would otherwise fill the table, and run it out of ports
        settings = {"netfilter/nf_conntrack_tcp_timeout_close": 1, "netfilter/nf_conntrack_udp_timeout": 1}
        with place.edge.inside():
            places.run(program("nft"), "-f", "-", input=f"""
        table ip bench {{
            chain target {{
                type nat hook {hook} priority -100;
                {maps}
            }}{source}
        }}""")
            if place.forwards:
                settings["ipv4/ip_forward"] = 1
            for name, value in settings.items():
                pathlib.Path("/proc/sys/net", name).write_text(str(value))
        return NftServer(place)


CONTENDERS = [
    Direct(),
    Haproxy("haproxy"),
    Haproxy("haproxy-tuned", tuned=True),
    Haproxy("haproxy-splice", splice=True),
    Nginx("nginx"),
    Nginx("nginx-tuned", tuned=True),
    Nft(),
    Tidegate(USER, fast=False),
    Tidegate(OURS),
]
NAMES = [c.name for c in CONTENDERS]
NOT_PEERS = (DIRECT, KERNEL, USER, OURS)
