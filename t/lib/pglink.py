#!/usr/bin/python3
"""
pglink DIR UPSTREAM FLAG [UID GID]: a Unix socket in front of PostgreSQL's
whose link can become half-open.

Connections that said "listen hm_feed" (and new ones that say it) carry
nothing any more, in neither direction and without a close, while the file
FLAG exists.  Runs as UID, because PostgreSQL asks the kernel who connects.
"""

import os
import socket
import sys
import threading
import time


def pump(src, dst, link, flag, watch):
    try:
        while True:
            data = src.recv(65536)
            if not data:
                break
            if watch and b"listen hm_feed" in data:
                link["feed"] = True
            while link["feed"] and os.path.exists(flag):
                time.sleep(0.02)
            dst.sendall(data)
    except OSError:
        pass
    for s in (src, dst):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def main():
    folder, upstream, flag = sys.argv[1:4]
    if len(sys.argv) > 4:
        os.setgroups([int(sys.argv[5])])
        os.setgid(int(sys.argv[5]))
        os.setuid(int(sys.argv[4]))
    door = socket.socket(socket.AF_UNIX)
    door.bind(os.path.join(folder, ".s.PGSQL.5432"))
    door.listen(64)
    print("ready", flush=True)
    while True:
        c, _ = door.accept()
        try:
            up = socket.socket(socket.AF_UNIX)
            up.connect(upstream)
        except OSError:
            c.close()
            continue
        link = {"feed": False}
        for args in ((c, up, True), (up, c, False)):
            threading.Thread(target=pump, daemon=True, args=(
                args[0], args[1], link, flag, args[2])).start()


main()
