"""Runs on a container of this machine by `incus exec`, as root in it. The host's name is the container's."""
import subprocess
import uuid

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


# incus 6.0 now and then loses the output of a short command, and nothing but the exit code arrives. So the output is in files of the container until all of
# it has come, which a mark at the end of each stream tells.
MARK = b"<end of incus_exec>"
SHOW = f'cat "$1"; printf "{MARK.decode()}"; cat "$1.err" >&2; printf "{MARK.decode()}" >&2'
RUN = f'(umask 077; : >"$1"; : >"$1.err"); sh -c "$2" >"$1" 2>"$1.err"; code=$?; {SHOW}; exit $code'


class Connection(ConnectionBase):
    transport = "incus_exec"
    has_pipelining = True
    _kept_output = None

    def _connect(self):
        self._connected = True
        return self

    def _incus(self, *words, data=None):
        result = subprocess.run([to_bytes(word) for word in ("incus", *words)], input=data or b"", capture_output=True, check=False)
        return result.returncode, result.stdout, result.stderr

    def _in_container(self, script, *words, data=None):
        return self._incus("exec", "--cwd", "/", self.get_option("remote_addr"), "--", "sh", "-c", script, "sh", *words, data=data)

    def exec_command(self, cmd, in_data=None, sudoable=False):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        if not self._kept_output:
            self._kept_output = f"/run/incus_exec.{uuid.uuid4().hex}"
        code, out, error = self._in_container(RUN, self._kept_output, cmd, data=in_data)
        for _ in range(20):
            if out.endswith(MARK) and error.endswith(MARK):
                return code, out[:-len(MARK)], error[:-len(MARK)]
            _, out, error = self._in_container(SHOW, self._kept_output)
        raise AnsibleConnectionFailure(f"the output of a command does not come out of the container: {error.decode(errors='replace')}")

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
        if self._kept_output:
            self._in_container('rm -f "$1" "$1.err"', self._kept_output)
            self._kept_output = None
        self._connected = False
