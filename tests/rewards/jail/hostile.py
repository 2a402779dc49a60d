"""Programs that try to get out of the jail, to stay behind it, or to take all there is.

Each prints GOT where it had its way. <OUTSIDE> is the process that runs the tests, <HOME> its folder of secrets, <PORT> and
<NAME> where it listens.
"""

from __future__ import annotations

PROLOGUE = """
import ctypes, glob, os, resource, signal, socket, stat, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def got(what):
    try:
        found = what()
    except (OSError, subprocess.SubprocessError, MemoryError):
        return
    if found not in (None, -1, False, [], "", b""):
        print("GOT", repr(found)[:200])
"""

READS = {
    "the users": "got(lambda: open('/etc/passwd').read())",
    "the home folder": "got(lambda: os.listdir('<HOME>')); got(lambda: open('<HOME>/secret').read())",
    "a link to it": "os.symlink('<HOME>/secret', 'link'); got(lambda: open('link').read())",
    "by a descriptor": "got(lambda: [os.readlink(f'/proc/self/fd/{n}') for n in range(3, 64)])\n"
    "got(lambda: [n for n in range(5, 64) if os.fstat(n)])",
    "the environment": "known = {'PYTHONHASHSEED', 'LANG', 'HOME', 'TMPDIR', 'PATH', 'LC_CTYPE', 'PWD'}\n"
    "got(lambda: sorted(set(os.environ) - known))",
    "others' environment": "got(lambda: open('/proc/<OUTSIDE>/environ').read())\n"
    "got(lambda: open('/proc/<OUTSIDE>/maps').read())",
    "other processes": "got(lambda: [one for one in os.listdir('/proc') if one.isdigit() and int(one) == <OUTSIDE>])",
    "the kernel's memory": "got(lambda: open('/dev/mem', 'rb').read(1)); got(lambda: os.listdir('/sys/kernel'))",
    "keys": "got(lambda: libc.syscall(250, 0, -3, 1))",
}
WRITES = {
    "a file outside": "got(lambda: open('<HOME>/written', 'w').write('x'))\n"
    "got(lambda: open('/tmp/written', 'w').write('x'))",
    "Python's library": "got(lambda: open(os.__file__, 'a').write('\\n')); got(lambda: os.chmod(os.__file__, 0o600) or 1)",
    "rights of files": "got(lambda: os.chmod('<HOME>', 0o777) or 1); got(lambda: os.chown('<HOME>', 0, 0) or 1)",
    "times of files": "got(lambda: os.utime('<HOME>/secret', (0, 0)) or 1)",
    "cut off": "got(lambda: os.truncate('<HOME>/secret', 0) or 1)",
    "a device": "got(lambda: os.mknod('disk', stat.S_IFBLK | 0o600, os.makedev(8, 0)) or 1)",
    "shared memory": "got(lambda: libc.shmget(4711, 4096, 0o1666)); got(lambda: open('/dev/shm/left', 'w').write('x'))",
}
SENDS = {
    "by TCP": "got(lambda: socket.create_connection(('127.0.0.1', <PORT>), 1))",
    "by UDP": "got(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', <PORT>)))",
    "to a name": "got(lambda: socket.socket(socket.AF_UNIX).connect('\\0<NAME>') or 1)",
    "to a file": "got(lambda: socket.socket(socket.AF_UNIX).connect('<HOME>/listens') or 1)",
    "as raw packets": "got(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))",
    "to the kernel": "got(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))",
    "as a server": "s = socket.socket(); s.bind(('127.0.0.1', 0)); got(lambda: s.listen() or 1)",
}
POWERS = {
    "mounts": "got(lambda: libc.mount(b'none', b'/', None, 1 << 18, None) == 0)",
    "nests a namespace": "got(lambda: libc.unshare(0x10000000) == 0)\n"
    "got(lambda: libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) >= 0)",
    "goes to another root": "got(lambda: os.chroot('/') or 1)",
    "traces": "got(lambda: libc.ptrace(16, <OUTSIDE>, 0, 0) == 0); got(lambda: libc.ptrace(0, 0, 0, 0) == 0)",
    "kills all": "got(lambda: os.kill(-1, 9) or 1)",
    "kills its parent": "os.getppid() > 1 and got(lambda: os.kill(os.getppid(), 9) or 1)",  # 1 is its own, and does not care
    "kills who is outside": "got(lambda: os.kill(<OUTSIDE>, 9) or 1)\n"
    "got(lambda: libc.syscall(424, <OUTSIDE>, 9, 0, 0) == 0)",
    "becomes root": "got(lambda: (os.setuid(0), open('/etc/shadow').read())[1])",
    "runs what is setuid": "got(lambda: [subprocess.run([one, '-V']) for one in ('/bin/su', '/usr/bin/passwd')])",
    "replaces itself": "got(lambda: os.execv('/bin/sh', ['sh', '-c', 'echo GOT']))",
    "loads a filter": "got(lambda: libc.syscall(321, 0, 0, 0) >= 0); got(lambda: libc.syscall(425, 8, 0) >= 0)",
    "raises its limits": "got(lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)) or 1)",
    "sets limits of others": "got(lambda: resource.prlimit(<OUTSIDE>, resource.RLIMIT_CPU, (1, 1)) or 1)",
    "slows others down": "got(lambda: os.setpriority(os.PRIO_PROCESS, <OUTSIDE>, 19) or 1)",
    "has a signal sent": "import fcntl; got(lambda: [fcntl.fcntl(0, fcntl.F_SETOWN, <OUTSIDE>)])",
    "sets the clock": "got(lambda: time.clock_settime(time.CLOCK_REALTIME, 0) or 1)",
}
STAYS = {
    "forks": "got(lambda: os.fork() or 1)",
    "a daemon": "os.fork() and os._exit(0)\nos.setsid()\nos.fork() and os._exit(0)\nprint('GOT')\ntime.sleep(600)",
    "forks without end": "for _ in range(10_000):\n    got(os.fork)",
    "starts processes": "got(lambda: subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']))",
    "a zombie": "got(lambda: os.posix_spawn(sys.executable, [sys.executable, '-c', ''], {}))",
    "has itself traced": "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.alarm(600); got(lambda: os.fork())",
}
TAKES = {
    "memory": ("x = []\nwhile True:\n    x.append(bytearray(2**24))", "exit"),
    "memory in files": ("got(lambda: os.memfd_create('x') or 1)\nx = 'x' * 2**30", "exit"),
    "the disk": (
        "n = 0\ntry:\n    while True:\n        open(f'{n}', 'wb').write(b'x' * 2**20); n += 1\nexcept OSError: pass\n"
        "got(lambda: n > 16)",
        "exit",
    ),
    "one file": (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nwith open('x', 'wb') as f:\n    f.write(b'x' * 2**25)",
        "exit",
    ),
    "output": ("while True:\n    os.write(1, b'x' * 2**12)", "output"),
    "errors": ("while True:\n    os.write(2, b'x' * 2**12)", "output"),
    "time": ("while True: pass", "time"),
    "time, and a handler": ("signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "killed time"),
    "threads": (
        "try:\n    for _ in range(1000):\n        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "    got(lambda: 1)\nexcept RuntimeError: pass",
        "exit",
    ),
    "recursion": ("def f(): f()\nsys.setrecursionlimit(10**9)\nf()", "exit killed time"),
    "nesting": ("exec('(' * 10**6)", "exit"),
    "closed descriptors": ("os.closerange(0, 64)\ntime.sleep(0.1)\nos._exit(7)", "exit"),
    "itself": ("os.kill(os.getpid(), 9)", "killed"),
}

RIGHT = "def double(x):\n    return 2 * x\n"
TESTS = ("assert double(2) == 4", "assert double(17) == 34")
CHEATS = {
    "os._exit(0)": "import os\nos._exit(0)",
    "os._exit(0) in a call": "import os\ndef double(x): os._exit(0)",
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "SystemExit in a call": "def double(x): raise SystemExit(0)",
    "prints OK": """
print("OK")
print('{"state": "tested", "outcomes": ["passed", "passed"]}')
""",
    "writes where answers go": """
import json, os
line = json.dumps({"state": "tested", "outcomes": ["passed"] * 2, "says": "", "value": True}) + "\\n"
for n in range(64):
    try:
        os.write(n, line.encode())
    except OSError:
        pass
os._exit(0)
""",
    "equal to all": """
class All:
    def __eq__(self, other): return True
def double(x): return All()
""",
    "an int that is equal to all": """
class All(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def double(x): return All(0)
""",
    "a list that is equal to all": """
class All(list):
    def __eq__(self, other): return True
def double(x): return All()
""",
    "patches builtins": """
import builtins
def double(x): return 0
builtins.AssertionError = Exception
builtins.exec = builtins.isinstance = builtins.len = lambda *a: True
""",
    "patches what runs it": """
import json, sys, unittest
unittest.TestCase.assertEqual = lambda *a: None
def double(x): return 0
main = sys.modules["__main__"]
for name in list(vars(main)):
    if not name.startswith("__") and callable(getattr(main, name)):
        setattr(main, name, lambda *a, **k: {"value": True})
json.dumps = lambda *a: '{"value": true}'
""",
    "reads the tests' file": """
import os
found = ""
for folder, _, names in os.walk("/"):
    if folder.count("/") > 2:
        break
    for name in names:
        try:
            found += open(os.path.join(folder, name)).read()
        except Exception:
            pass
def double(x): return 4 if x == 2 else 34 if "double(17)" in found else None
""",
    "looks at who calls": """
import gc, sys
def double(x):
    frame = sys._getframe()
    while frame:
        if "34" in repr(frame.f_locals):
            return 34
        frame = frame.f_back
    return 34 if any("double(17)" in one for one in gc.get_objects() if isinstance(one, str)) else 4
""",
    "shadows what tests use": """
def double(x): return 0
len = print = abs = isinstance = lambda *a: True
""",
    "says what is no answer": """
import os
def double(x):
    os.write(5, b'{"ready": []}\\n{"value": ["z", 1]}\\n' + b"[" * 100_000 + b"\\n")
    return 0
""",
    "numbers that are too large": "def double(x): return 1 << 8_000_000",
    "the answers to what it saw": "def double(x): return {2: 4}[x]",
}
"""Programs that are wrong, and would be right."""
