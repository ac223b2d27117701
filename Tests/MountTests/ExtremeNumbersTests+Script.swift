extension MountTests.ExtremeNumbers {
    /// Files that ``script`` wants, f1 and so on: it takes a new one for each call. On tmpfs there are fewer.
    static let callCount = 570

    /// Performs each call with every number in the directory that it is given, and prints what each returned and left behind;
    /// then how many there were.
    static let script = #"""
        import ctypes, os, sys
        top, kind = sys.argv[1:]
        C = ctypes.CDLL(None, use_errno=True)
        L, S = ctypes.c_longlong, ctypes.c_size_t
        for name in ("pread", "pwrite", "lseek", "copy_file_range"): getattr(C, name).restype = L
        most, number, buffer = 2**63 - 1, 0, ctypes.create_string_buffer(70000)

        def say(what, call):
            global number
            number += 1
            path = "%s/f%d" % (top, number)
            file = os.open(path, os.O_RDWR)
            try:
                result = call(file, path.encode())
                if result == -1: result = os.strerror(ctypes.get_errno())
            except OSError as error: result = error.strerror
            size = os.fstat(file).st_size
            text = "%s: %s, %d bytes" % (what, result, size)
            # What a call did before it failed is another matter.
            if not isinstance(result, str): text += ", ends with %d" % sum(os.pread(file, 4096, max(0, size - 4096)))
            print(text, flush=True)
            os.close(file)
            os.unlink(path)

        def copy(file, start, to, count):
            (start, to) = (L(start), L(to))
            result = C.copy_file_range(file, ctypes.byref(start), file, ctypes.byref(to), S(count & 2**64 - 1), 0)
            return min(result, 0)

        def times(file, path, seconds, part):
            if C.futimens(file, (L * 4)(seconds, part, seconds, part)): return -1
            status = os.stat(path)
            return 0 if part >= 2**30 - 2 else status.st_mtime_ns + status.st_atime_ns

        for place in (0, 1, 2**31, 2**32, 2**62, most - 4095, most, -1, -2**63):
            say("pread %d" % place, lambda file, path: C.pread(file, buffer, 4096, L(place)))
            for count in (1, 70000):
                say("pwrite %d %d" % (count, place), lambda file, path: C.pwrite(file, b"x" * count, S(count), L(place)))
            say("ftruncate %d" % place, lambda file, path: C.ftruncate(file, L(place)))
            say("truncate %d" % place, lambda file, path: C.truncate(path, L(place)))
            for whence in range(3):
                say("lseek %d %d" % (place, whence), lambda file, path: C.lseek(file, L(place), whence))
            for whence in (3, 4):
                # Where the data is may differ, whether there is any may not.
                say("lseek %d %d" % (place, whence), lambda file, path: min(0, C.lseek(file, L(place), whence)))
            for count in (4096, most):
                say("fadvise %d %d" % (place, count), lambda file, path: C.posix_fadvise(file, L(place), L(count), 3))
                say("readahead %d %d" % (place, count), lambda file, path: C.readahead(file, L(place), S(count)))
                say("sync_file_range %d %d" % (place, count), lambda file, path: C.sync_file_range(file, L(place), L(count), 7))
            for count in (0, 1, 2**31, 2**62, most, -1):
                for mode in (3, 0, 1) if kind == "tmpfs" else (3, 16, 17, 0, 1):
                    # What has to find blocks for so much takes its time, natively too.
                    if mode != 3 and count == 2**31 and place < 2**40: continue
                    say("fallocate %d %d %d" % (mode, place, count), lambda file, path: C.fallocate(file, mode, L(place), L(count)))
                say("copy from %d %d" % (place, count), lambda file, path: copy(file, place, 131072, count))
                say("copy to %d %d" % (place, count), lambda file, path: copy(file, 0, place, count))
        for seconds in (0, 1, -1, 2**32, 2**34, most, -2**31 - 1, -2**63):
            for part in (0, 999999999, 1000000000, 2**30 - 2, 2**30 - 1, -1):
                say("utimens %d %d" % (seconds, part), lambda file, path: times(file, path, seconds, part))
        for size in (0, 1, 3000, 65536, 65537, 2**31, 2**62, 2**64 - 1):
            value = b"x" * min(size, 65537)
            say("setxattr %d" % size, lambda file, path: C.fsetxattr(file, b"user.x", value, S(size), 0))
            say("getxattr %d" % size, lambda file, path:
                C.fsetxattr(file, b"user.x", b"12345", 5, 0) or C.fgetxattr(file, b"user.x", buffer, S(size)))
            say("listxattr %d" % size, lambda file, path:
                C.fsetxattr(file, b"user.x", b"12345", 5, 0) or min(0, C.flistxattr(file, buffer, S(size))))
        # FUSE's own: no two file systems number a directory's entries alike. The daemon has to bear it.
        directory = os.open(top, os.O_RDONLY)
        for place in (1, 2**31, 2**32, 2**62, most, -1, -2**63):
            C.lseek(directory, L(place), 0)
            for size in (0, 1, 24, 65536, 2**31, 2**32 - 1): C.syscall(217, directory, buffer, ctypes.c_uint(min(size, 70000)))
        print(number)
        """#
}
