"""Hosts as network namespaces on one bridge, and faults of the lines between them. Needs root, iproute2, nftables.

The namespaces have no names: each lives as long as a process in it, the first of which ("holder") ends with this one.
The bridge is in a namespace too, so nothing is changed on the host, and every network may use the same addresses."""
import ctypes
import heapq
import os
import random
import select
import socket
import subprocess
import sys
import time

PREFIX = "10.77.0."


class Holder:
    """A process that does nothing, in a network namespace of its own."""

    def __init__(self):
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
        self.pid = self.process.pid
        here = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{self.pid}/ns/net") == here:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("no network namespace could be made (root is needed)")
            time.sleep(0.005)

    def enter(self):
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net"]

    def end(self):
        self.process.kill()
        self.process.wait()


def tool(*words, text=None):
    result = subprocess.run(words, input=text, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {result.stderr}")


class Network:
    """All faults are rules of the switch, at the ports p-HOST: the hosts see nothing but silence. A fault has a key; to
    set it again replaces it, to heal a host takes away every fault that it is part of."""

    def __init__(self):
        self.hosts = {}
        self.addresses = {}
        self.faults = {}
        self.lines = {}
        self.switch = Holder()
        try:
            self.at_switch("ip", "link", "add", "br0", "type", "bridge")
            self.at_switch("ip", "link", "set", "br0", "up")
            self.at_switch("nft", "-f", "-", text="add table bridge faults\n"
                           "add chain bridge faults forward { type filter hook forward priority 0; }\n")
        except BaseException:
            self.close()
            raise

    def at_switch(self, *words, text=None):
        tool(*self.switch.enter(), *words, text=text)

    def add_host(self, name):
        """Returns its address. One that is there already is taken again."""
        if name in self.hosts:
            return self.addresses[name]
        host = self.hosts[name] = Holder()
        address = self.addresses[name] = PREFIX + str(len(self.hosts))
        self.at_switch("ip", "link", "add", f"p-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self.at_switch("ip", "link", "set", f"p-{name}", "master", "br0", "up")
        for words in ("link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up"):
            tool(*host.enter(), "ip", *words.split())
        return address

    def enter(self, name):
        return self.hosts[name].enter()

    def visit(self, name):
        """The thread that calls this makes its connections from that host from now on."""
        with open(f"/proc/{self.hosts[name].pid}/ns/net") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def close(self):
        for line in self.lines.values():
            line.kill()
            line.wait()
        for holder in [*self.hosts.values(), self.switch]:
            holder.end()

    def fault(self, key, *rules):
        """key: the kind and the hosts that take part."""
        self.faults[key] = rules
        self.apply()

    def apply(self):
        rules = "".join(f"add rule bridge faults forward {rule}\n" for rules in self.faults.values() for rule in rules)
        self.at_switch("nft", "-f", "-", text="flush chain bridge faults forward\n" + rules)

    # --- Faults. Hosts are names.

    def cut(self, host):
        """Everything to and from the host is dropped without a word, as when its power or its switch fails."""
        self.fault(("cut", host), f'iifname "p-{host}" drop', f'oifname "p-{host}" drop')

    def cut_one_way(self, source, target):
        self.fault(("one way", source, target), f'iifname "p-{source}" oifname "p-{target}" drop')

    def cut_between(self, one, other):
        ways = ((one, other), (other, one))
        self.fault(("between", one, other), *(f'iifname "p-{source}" oifname "p-{to}" drop' for source, to in ways))

    def lose(self, host, percent):
        """Some of the packets in each direction."""
        chance = f"numgen random mod 100 < {percent} drop"
        self.fault(("lose", host), f'iifname "p-{host}" {chance}', f'oifname "p-{host}" {chance}')

    def link_down(self, host):
        """The host sees it: no carrier."""
        self.faults[("link down", host)] = ()
        self.at_switch("ip", "link", "set", f"p-{host}", "down")

    def delay(self, host, seconds, jitter=0.0, in_order=True):
        """Every packet in each direction, by up to `jitter` more, each by itself; the order is kept, or not (as netem's). A process of ours
        passes the frames on between the host's port and the bridge, because not every kernel has netem."""
        port, far, near = f"p-{host}", f"d-{host}", f"e-{host}"
        self.faults[("delay", host)] = ()
        self.at_switch("ip", "link", "add", near, "type", "veth", "peer", "name", far)
        self.at_switch("ip", "link", "set", near, "up")
        self.at_switch("ip", "link", "set", port, "nomaster")
        # Rules go by the name of the port on the bridge: the line's end takes the name.
        self.at_switch("ip", "link", "set", port, "down")
        self.at_switch("ip", "link", "set", port, "name", f"w-{host}")
        self.at_switch("ip", "link", "set", far, "name", port)
        self.at_switch("ip", "link", "set", f"w-{host}", "up")
        self.at_switch("ip", "link", "set", port, "master", "br0", "up")
        words = [sys.executable, os.path.abspath(__file__), f"w-{host}", near, str(seconds), str(jitter), "in order" if in_order else "as it comes"]
        self.lines[host] = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.switch.enter(), *words])

    def no_delay(self, host):
        self.lines[host].kill()
        self.lines.pop(host).wait()
        self.at_switch("ip", "link", "delete", f"e-{host}")
        self.at_switch("ip", "link", "set", f"w-{host}", "down")
        self.at_switch("ip", "link", "set", f"w-{host}", "name", f"p-{host}")
        self.at_switch("ip", "link", "set", f"p-{host}", "master", "br0", "up")

    def heal(self, host=None):
        """Of the host, or of all."""
        for key in [key for key in self.faults if host is None or host in key[1:]]:
            self.end(key)

    def end(self, key):
        """Of one fault."""
        if self.faults.pop(key, None) is None:
            return
        self.apply()
        if key[0] == "link down":
            self.at_switch("ip", "link", "set", f"p-{key[1]}", "up")
        elif key[0] == "delay":
            self.no_delay(key[1])


def pass_on(one, other, seconds, jitter, in_order):
    """Between two interfaces, each frame after its delay."""
    SOL_PACKET, PACKET_VNET_HDR, ETH_P_ALL = 263, 15, 3
    ends = []
    for name in (one, other):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        # With their checksum and segmentation offloads: a veth leaves both to the receiver.
        end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        end.bind((name, ETH_P_ALL))
        ends.append(end)
    queue = []
    count = 0
    last = [0.0, 0.0]
    while True:
        wait = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        for end in select.select(ends, [], [], wait)[0]:
            frame, address = end.recvfrom(1 << 17)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            side = ends.index(end)
            due = time.monotonic() + seconds + random.uniform(0, jitter)
            if in_order:
                due = last[side] = max(last[side], due)
            count += 1
            heapq.heappush(queue, (due, count, 1 - side, frame))
        while queue and queue[0][0] <= time.monotonic():
            _, _, side, frame = heapq.heappop(queue)
            try:
                ends[side].send(frame)
            except OSError:
                pass  # the interface is down: lost


if __name__ == "__main__":
    pass_on(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), sys.argv[5] == "in order")
