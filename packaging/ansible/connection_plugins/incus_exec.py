"""Runs on a container of this machine by `incus exec`, as root in it. The host's name is the container's."""
import subprocess

from ansible.errors import AnsibleConnectionFailure, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: incus_exec
short_description: incus exec
description: Runs commands in a container of this machine by C(incus exec).
options:
  remote_addr:
    description: The container.
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
"""


class Connection(ConnectionBase):
    transport = "incus_exec"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def _incus(self, *words, data=None):
        result = subprocess.run([to_bytes(word) for word in ("incus", *words)], input=data or b"", capture_output=True, check=False)
        return result.returncode, result.stdout, result.stderr

    def exec_command(self, cmd, in_data=None, sudoable=False):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._incus("exec", "--cwd", "/", self.get_option("remote_addr"), "--", "sh", "-c", cmd, data=in_data)

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        code, _, error = self._incus("file", "push", "-q", in_path, self.get_option("remote_addr") + "/" + out_path.lstrip("/"))
        if code != 0:
            raise AnsibleFileNotFound(f"{in_path} was not copied: {error.decode(errors='replace')}")

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        code, _, error = self._incus("file", "pull", "-q", self.get_option("remote_addr") + "/" + in_path.lstrip("/"), out_path)
        if code != 0:
            raise AnsibleConnectionFailure(f"{in_path} was not fetched: {error.decode(errors='replace')}")

    def close(self):
        self._connected = False
