"""What stands in for a command: see forked.py. It imports little, for it is started often."""

import json
import os
import signal
import socket
import struct
import sys

PASSED_ON = {signal.SIGINT, signal.SIGTERM}


def main() -> int:
    """Have a command run; returns how it ended, as `os.waitpid` has it."""
    # Before anything is opened, which would take the number of a file that is closed.
    files = [number for number in range(3) if is_open(number)]
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    asked = json.dumps(
        {
            "arguments": sys.argv[2:],
            "directory": os.getcwd(),
            "environment": dict(os.environ),
            "files": files,
        }
    ).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect("\0" + sys.argv[1])
        socket.send_fds(server, [struct.pack("I", len(asked))], files)
        server.sendall(asked)
        with server.makefile() as answer:
            process = int(answer.readline())
            for one in PASSED_ON:
                signal.signal(one, lambda number, _: os.kill(process, number))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
            return int(answer.readline())


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    ended = main()
    if os.WIFSIGNALED(ended):
        signal.signal(os.WTERMSIG(ended), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(ended))
    os._exit(os.waitstatus_to_exitcode(ended))
