import CLinux
import Glibc
import HSMSystem

/// The results of calls in a directory, one a line.
struct CallLog {
    let directory: String
    private(set) var lines: [String] = []

    init(directory: String) { self.directory = directory }

    func at(_ name: String) -> String { directory + "/" + name }

    /// Notes what a call returned, and its errno where it failed.
    mutating func note(_ what: String, _ result: some SignedInteger) {
        let error = errno
        lines.append(result == -1 ? "\(what): \(Errno(rawValue: error).text)" : "\(what): \(result)")
    }

    mutating func text(_ what: String, _ value: some CustomStringConvertible) { lines.append("\(what): \(value)") }

    /// Notes the status of a name or descriptor, but for the numbers that differ between two files.
    mutating func status(_ what: String, _ descriptor: Int32) {
        var status = stat()
        note(what, fstat(descriptor, &status))
        text(what, "\(String(status.st_mode, radix: 8)) \(status.st_nlink) \(status.st_uid) \(status.st_size)")
    }

    /// Opens a name; -1 and a line with the errno where that fails.
    mutating func open(_ name: String, _ flags: Int32, _ mode: mode_t = 0o644) -> Int32 {
        let result = Glibc.open(at(name), flags, mode)
        note("open \(name) \(String(flags, radix: 8))", result == -1 ? -1 : 0)
        return result
    }

    mutating func put(_ text: String, _ name: String) {
        let file = open(name, O_WRONLY | O_CREAT | O_TRUNC)
        note("write", write(file, text, text.utf8.count))
        close(file)
    }

    mutating func content(_ name: String) {
        let file = open(name, O_RDONLY)
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = read(file, &bytes, bytes.count)
        note("read \(name)", count)
        text(name, String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self))
        close(file)
    }
}

extension ConformanceCase {
    static let calls: [ConformanceCase] = [
        ConformanceCase("O_TMPFILE") { log in
            let parent = open(log.directory, O_RDONLY | O_DIRECTORY)
            let file = log.open(".", PASSHSM_O_TMPFILE | O_RDWR, 0o640)
            log.note("write", write(file, "hello", 5))
            log.status("unnamed", file)
            log.note("link", linkat(file, "", parent, "named", PASSHSM_AT_EMPTY_PATH))
            log.status("named", file)
            log.content("named")
            log.note("again", linkat(file, "", parent, "other", PASSHSM_AT_EMPTY_PATH))
            let hidden = log.open(".", PASSHSM_O_TMPFILE | O_RDWR | O_EXCL, 0o600)
            log.note("link", linkat(hidden, "", parent, "never", PASSHSM_AT_EMPTY_PATH))
            _ = log.open(".", PASSHSM_O_TMPFILE | O_RDONLY)
            _ = log.open("named", PASSHSM_O_TMPFILE | O_RDWR)
            let through = log.open(".", PASSHSM_O_TMPFILE | O_WRONLY, 0o600)
            log.note("write", write(through, "xy", 2))
            log.note("link", linkat(AT_FDCWD, "/proc/self/fd/\(through)", parent, "third", AT_SYMLINK_FOLLOW))
            log.content("third")
            for descriptor in [parent, file, hidden, through] { close(descriptor) }
        },
        ConformanceCase("renameat2 with NOREPLACE, EXCHANGE and WHITEOUT") { log in
            func rename(_ old: String, _ new: String, _ flags: UInt32) {
                let result = passhsm_renameat2(AT_FDCWD, log.at(old), AT_FDCWD, log.at(new), flags)
                log.note("\(old) \(new) \(flags)", result)
            }
            log.put("a", "a")
            log.put("b", "b")
            mkdir(log.at("d"), 0o755)
            rename("a", "b", 1)
            rename("a", "c", 1)
            rename("c", "b", 2)
            rename("c", "none", 2)
            rename("c", "b", 3)
            rename("c", "d", 2)
            rename("b", "w", 4)
            rename("w", "y", 8)
            for name in ["b", "c", "d", "w"] {
                var status = stat()
                log.note(name, lstat(log.at(name), &status))
                log.text(name, "\(String(status.st_mode, radix: 8)) \(status.st_rdev)")
            }
            log.content("d")
            log.content("w")
        },
        ConformanceCase("fallocate punches, zeroes and extends; data and holes are found") { log in
            let modes = [
                0, PASSHSM_FALLOC_KEEP_SIZE, PASSHSM_FALLOC_KEEP_SIZE | PASSHSM_FALLOC_PUNCH_HOLE,
                PASSHSM_FALLOC_PUNCH_HOLE, PASSHSM_FALLOC_ZERO_RANGE,
                PASSHSM_FALLOC_ZERO_RANGE | PASSHSM_FALLOC_KEEP_SIZE,
            ]
            for mode in modes {
                let file = log.open("f", O_RDWR | O_CREAT | O_TRUNC)
                log.note("write", write(file, [UInt8](repeating: 97, count: 20000), 20000))
                for (offset, length) in [(4096, 4096), (100, 50), (18000, 8000), (0, 0), (-1, 5), (30000, 4096)] {
                    log.note("\(mode) \(offset) \(length)", passhsm_fallocate(file, mode, offset, length))
                    log.status("after", file)
                    var bytes = [UInt8](repeating: 1, count: 50000)
                    let count = pread(file, &bytes, bytes.count, 0)
                    log.text("left", bytes.prefix(count).count { $0 == 97 })
                }
                log.note("sync", fsync(file))
                for whence in [PASSHSM_SEEK_DATA, PASSHSM_SEEK_HOLE] {
                    for offset in [-1, 0, 4096, 8192, 40000] {
                        log.note("seek \(offset) \(whence)", lseek(file, offset, whence))
                    }
                }
                close(file)
            }
        },
        ConformanceCase("copy_file_range in a file, between files and where it may not") { log in
            log.put(String(repeating: "abcdefgh", count: 1000), "f")
            log.put("short", "g")
            let (from, to) = (log.open("f", O_RDWR), log.open("g", O_RDWR))
            let (readOnly, appending) = (log.open("g", O_RDONLY), log.open("g", O_WRONLY | O_APPEND))
            for (input, output, start, end, count) in [
                (from, to, 0, 5, 3000), (from, to, 8000, 0, 10), (from, from, 0, 8000, 100), (from, from, 0, 50, 100),
                (from, readOnly, 0, 0, 5), (from, appending, 0, 0, 5), (to, from, 2, 1, 3),
            ] {
                var (inOffset, outOffset) = (start, end)
                log.note("copy", passhsm_copy_file_range(input, &inOffset, output, &outOffset, count, 0))
                log.text("offsets", "\(inOffset) \(outOffset)")
            }
            log.content("g")
            for file in [from, to, readOnly, appending] { close(file) }
        },
        ConformanceCase("A file without a name lives on, and can be changed") { log in
            log.put("abc", "f")
            let file = log.open("f", O_RDWR)
            log.note("unlink", unlink(log.at("f")))
            log.note("write", pwrite(file, "xyz1", 4, 0))
            log.note("chmod", fchmod(file, 0o600))
            log.note("chown", fchown(file, 1, 1))
            log.note("truncate", ftruncate(file, 100))
            log.note("setxattr", fsetxattr(file, "user.a", "1", 1, 0))
            log.status("unlinked", file)
            log.note("link", linkat(AT_FDCWD, "/proc/self/fd/\(file)", AT_FDCWD, log.at("g"), AT_SYMLINK_FOLLOW))
            mkdir(log.at("d"), 0o755)
            let directory = log.open("d", O_RDONLY)
            log.note("rmdir", rmdir(log.at("d")))
            log.note("create", openat(directory, "x", O_CREAT | O_WRONLY, 0o600))
            log.status("removed", directory)
            for descriptor in [file, directory] { close(descriptor) }
        },
        ConformanceCase("Unknown ioctls are refused") { log in
            log.put("text", "f")
            let file = log.open("f", O_RDWR)
            var argument = [UInt8](repeating: 0, count: 1024)
            for command: UInt in [0x5401, 0x8004_5a5a, 0x1234_5678, 0x8008_1272] {
                log.note(String(command, radix: 16), passhsm_ioctl(file, command, &argument))
            }
            close(file)
        },
        ConformanceCase("Mappings, reads and writes of one file agree") { log in
            log.put(String(repeating: "a", count: 8192), "f")
            let files = [log.open("f", O_RDWR), log.open("f", O_RDWR)]
            let maps = files.compactMap { mmap(nil, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, $0, 0) }
            maps[0].storeBytes(of: 0x7a, as: UInt8.self)
            var byte: UInt8 = 0
            log.note("read", pread(files[1], &byte, 1, 0))
            log.text("read", byte)
            log.text("mapped", maps[1].load(as: UInt8.self))
            log.note("write", pwrite(files[1], "123", 3, 4096))
            log.text("mapped", maps[0].load(fromByteOffset: 4097, as: UInt8.self))
            log.note("sync", msync(maps[0], 8192, MS_SYNC))
            log.note("extend", ftruncate(files[0], 20000))
            log.note("write", pwrite(files[0], "end", 3, 19990))
            log.status("extended", files[1])
            for map in maps { munmap(map, 8192) }
            for file in files { close(file) }
        },
    ]
}
