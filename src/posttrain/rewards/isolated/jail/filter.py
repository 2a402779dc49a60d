"""The system calls that a program in the jail may not make: a filter of classic BPF, by which the kernel refuses them.

No process is started (threads may be), none but the program itself is signalled, no socket is opened but in pairs, nothing of
a file changes but what it holds, and none of the doors through which kernels were broken into is open.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping

ARCHITECTURES: Mapping[str, tuple[int, int]] = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""What the kernel calls a machine, and its column in the table."""
CALLS: Mapping[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117), "kcmp": (312, 272),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "setpgid": (109, 154), "setsid": (112, 157),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "truncate": (76, 45), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "setxattrat": (463, 463), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "removexattrat": (466, 466), "file_setattr": (469, 469), "mknod": (133, None),
    "mknodat": (259, 33), "flock": (73, 32), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "fanotify_init": (300, 262), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "mlock": (149, 228), "mlockall": (151, 230),
    "mlock2": (325, 284), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_tree_attr": (467, 467), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_setup": (206, 0), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161),
    "setdomainname": (171, 162), "personality": (135, 92), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None), "uselib": (134, None), "lookup_dcookie": (212, 18), "vmsplice": (278, 75),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "mbind": (237, 235), "set_mempolicy": (238, 237),
}  # fmt: skip
"""Refused whatever their arguments are: the number of each on either machine, None where there is none."""
OWN_ALONE = {"kill": (62, 129), "tgkill": (234, 131)}
"""Which may name the program's own process alone."""
ORDERS = (((72, 25), (8, 10, 15, 1026)), ((16, 29), (0x8901, 0x8902, 0x5412, 0x541C)))
"""Orders of fcntl and of ioctl by which a signal is sent to another process, or a letter to its terminal."""
PRLIMIT, CLONE, CLONE3 = (302, 261), (56, 220), (435, 435)
THREAD = 0x10000  # CLONE_THREAD
NEW = 0x7E020080  # CLONE_NEW*: a namespace of any kind
UNKNOWN = 470  # from here on: calls that kernels learnt after this was written; and x86_64's second table
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, MACHINE, FIRST, SECOND = 0, 4, 16, 24  # offsets of what the filter looks at
LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06


def is_known() -> bool:
    """Whether there is a filter for this machine."""
    return platform.machine() in ARCHITECTURES


def program(pid: int | None) -> bytes:
    """The filter of a process. Without its number, which bubblewrap cannot tell, it may signal whom it sees.

    Returns:
        Instructions of 8 bytes.
    """
    name, column = ARCHITECTURES[platform.machine()]
    refused = REFUSE | errno.EPERM
    code = [(LOAD, 0, 0, MACHINE), (EQUAL, 1, 0, name), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    code += [(AT_LEAST, 0, 1, UNKNOWN), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    for numbers in CALLS.values():
        if (number := numbers[column]) is not None:
            code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, refused)]
    code += [
        (EQUAL, 0, 1, CLONE3[column]),
        (RETURN, 0, 0, REFUSE | errno.ENOSYS),
    ]  # then clone is taken, whose flags are seen
    code += [(EQUAL, 0, 5, CLONE[column]), (LOAD, 0, 0, FIRST), (AND, 0, 0, THREAD | NEW), (EQUAL, 0, 1, THREAD)]
    code += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, refused)]
    for numbers, orders in ORDERS:
        code += _of_second(numbers[column], orders)
    own = (0,) if pid is None else (0, pid)
    code += _of_first(PRLIMIT[column], own)
    if pid is not None:
        for numbers in OWN_ALONE.values():
            code += _of_first(numbers[column], (pid,))
    code.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def _of_first(number: int, allowed: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Lets a call through whose first argument is one of these."""
    inside = [(LOAD, 0, 0, FIRST)]
    for place, value in enumerate(allowed):
        inside.append((EQUAL, len(allowed) - place, 0, value))
    inside += [(RETURN, 0, 0, REFUSE | errno.EPERM), (RETURN, 0, 0, ALLOW)]
    return [(EQUAL, 0, len(inside), number), *inside]


def _of_second(number: int, refused: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Refuses a call whose second argument is one of these."""
    inside = [(LOAD, 0, 0, SECOND)]
    for place, value in enumerate(refused):
        inside.append((EQUAL, len(refused) - place, 0, value))
    inside += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    return [(EQUAL, 0, len(inside), number), *inside]


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def install(libc: ctypes.CDLL) -> None:
    """Of this process, from now on and for good.

    Raises:
        OSError: the kernel has no filters.
    """
    code = program(os.getpid())
    given = _Filter(len(code) // 8, code)
    if libc.prctl(22, 2, ctypes.byref(given), 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_SECCOMP): {os.strerror(number)}")
