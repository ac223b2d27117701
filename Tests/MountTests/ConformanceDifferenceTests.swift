import CLinux
import Glibc
import HSMSystem
import Testing

extension MountTests {
    /// What SEMANTICS.md says of the mount where the kernel's FUSE cannot do what the lower file system does.
    @Suite struct ConformanceDifferences {
        func onMount(_ arguments: [String] = [], _ body: (Mirror) throws -> Void) throws {
            try withMirror(apart: true, mounting: arguments) { mirror throws in
                try File.put("content", mirror.remote("known"))
                chmod(mirror.scratch.path, 0o755)
            } _: { mirror throws in
                try File.put("abcdef", mirror.at("f"))
                try body(mirror)
            }
        }

        @Test("Through passthrough O_APPEND cannot be cleared; without it, it can", arguments: [true, false])
        func append(isPassthrough: Bool) throws {
            try onMount(isPassthrough ? [] : ["--no-passthrough"]) { mirror throws in
                let file = try File.open(mirror.at("f"), O_RDWR | O_APPEND)
                #expect(fcntl(file.raw, F_SETFL, 0) == 0)
                #expect(pwrite(file.raw, "X", 1, 0) == 1)
                #expect(try File.bytes(mirror.at("f")) == Array((isPassthrough ? "abcdefX" : "Xbcdef").utf8))
            }
        }

        @Test("Without passthrough O_DIRECT wants no alignment, and cached reads leave the access time")
        func cached() throws {
            try onMount(["--no-passthrough"]) { mirror throws in
                let file = try File.open(mirror.at("f"), O_RDWR | PASSHSM_O_DIRECT)
                #expect(pwrite(file.raw, "X", 1, 1) == 1)
                _ = try File.bytes(mirror.at("f"))
                try shell("touch -a -d @5 f; touch -m -d @9 f; cat f >/dev/null", in: mirror.mount)
                #expect(try File.stat(mirror.at("f")).st_atim.tv_sec == 5)
            }
        }

        @Test(
            "Access times are kept as below, whatever the mount's own options say",
            arguments: ["noatime", "strictatime"])
        func accessTime(option: String) throws {
            try onMount { mirror throws in
                try shell("mount -i -o remount,bind,$1 .", in: mirror.mount, [option])
                // With relatime a read moves an access time that is before the modification, and no later one.
                let late = 4_000_000_000
                try shell(
                    "touch -m -d @9 f; touch -a -d @5 f; touch -a -d @$1 known; cat f known", in: mirror.mount,
                    ["\(late)"])
                #expect(try File.stat(mirror.at("f")).st_atim.tv_sec > 5)
                #expect(try File.stat(mirror.at("known")).st_atim.tv_sec == late)
            }
        }

        @Test("access(2) calls an immutable file writable; open(2) does not")
        func immutable() throws {
            try onMount { mirror throws in
                try shell("chattr +i f", in: mirror.mount)
                #expect(access(mirror.at("f"), W_OK) == 0)
                #expect(Glibc.open(mirror.at("f"), O_WRONLY) == -1 && errno == EPERM)
                try shell("chattr -i f", in: mirror.mount)
            }
        }

        @Test("copy_file_range(2) does not leave the mount")
        func copy() throws {
            try onMount { mirror throws in
                let inside = try File.open(mirror.at("f"), O_RDWR)
                let outside = try File.open(mirror.tree + "/known", O_RDWR)
                for (from, to) in [(inside, outside), (outside, inside)] {
                    var (start, end) = (0, 0)
                    #expect(passhsm_copy_file_range(from.raw, &start, to.raw, &end, 3, 0) == -1 && errno == EXDEV)
                }
                try shell("cp known copied && cmp known copied", in: mirror.mount)
            }
        }

        @Test("FITRIM, FS_IOC_GETVERSION and FS_IOC_GETFSLABEL answer ENOTTY")
        func ioctls() throws {
            try onMount { mirror throws in
                let file = try File.open(mirror.at("f"))
                var argument = [UInt8](repeating: 0, count: 256)
                for command: UInt in [0xc018_5879, 0x8008_7601, 0x8100_9431] {
                    #expect(passhsm_ioctl(file.raw, command, &argument) == -1 && errno == ENOTTY)
                }
            }
        }

        /// A function of the C library that Swift's Glibc hides.
        private func function<Function>(_ name: String, as type: Function.Type) throws -> Function {
            unsafeBitCast(try #require(dlsym(nil, name)), to: type)
        }

        @Test("preadv2(2) knows neither RWF_NOWAIT nor RWF_DONTCACHE", arguments: [Int32(8), 0x80])
        func flags(flag: Int32) throws {
            typealias Call = @convention(c) (Int32, UnsafePointer<iovec>, Int32, Int, Int32) -> Int
            let preadv2 = try function("preadv2", as: Call.self)
            try onMount { mirror throws in
                let file = try File.open(mirror.at("f"))
                var buffer = [UInt8](repeating: 0, count: 6)
                let (plain, flagged) = buffer.withUnsafeMutableBytes { bytes in
                    var part = iovec(iov_base: bytes.baseAddress, iov_len: 6)
                    return (preadv2(file.raw, &part, 1, 0, 0), preadv2(file.raw, &part, 1, 0, flag))
                }
                #expect(plain == 6 && flagged == -1 && errno == EOPNOTSUPP)
            }
        }

        @Test("statx(2) tells neither inode flags nor the alignment of direct I/O")
        func attributes() throws {
            typealias Call =
                @convention(c) (Int32, UnsafePointer<CChar>, Int32, UInt32, UnsafeMutableRawPointer?) -> Int32
            let statx = try function("statx", as: Call.self)
            let (alignment, immutable): (UInt32, UInt64) = (0x2000, 0x10)
            /// stx_mask, stx_attributes and stx_attributes_mask.
            func ask(_ path: String) -> (mask: UInt32, attributes: UInt64, known: UInt64) {
                let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 8)
                defer { buffer.deallocate() }
                #expect(statx(AT_FDCWD, path, 0, alignment, buffer.baseAddress) == 0)
                return (
                    buffer.load(as: UInt32.self), buffer.load(fromByteOffset: 8, as: UInt64.self),
                    buffer.load(fromByteOffset: 56, as: UInt64.self)
                )
            }
            try onMount { mirror throws in
                try shell("chattr +i f", in: mirror.mount)
                let (below, above) = (ask(mirror.tree + "/f"), ask(mirror.at("f")))
                #expect(below.mask & alignment != 0 && below.attributes & below.known & immutable != 0)
                #expect(above.mask & alignment == 0 && (above.attributes | above.known) & immutable == 0)
                try shell("chattr -i f", in: mirror.mount)
            }
        }

        @Test("fanotify_mark(2) takes no pre-content events, and no file system mark of a group that reports by handle")
        func fanotify() throws {
            typealias Start = @convention(c) (UInt32, UInt32) -> Int32
            typealias Mark = @convention(c) (Int32, UInt32, UInt64, Int32, UnsafePointer<CChar>) -> Int32
            let start = try function("fanotify_init", as: Start.self)
            let mark = try function("fanotify_mark", as: Mark.self)
            try onMount { mirror throws in
                // FAN_CLASS_PRE_CONTENT; FAN_MARK_ADD, FAN_PRE_ACCESS.
                let group = Descriptor(owning: start(0x8, 0))
                #expect(mark(group.raw, 1, 0x10_0000, AT_FDCWD, mirror.tree + "/f") == 0)
                #expect(mark(group.raw, 1, 0x10_0000, AT_FDCWD, mirror.at("f")) == -1 && errno == EOPNOTSUPP)
                // FAN_REPORT_FID; FAN_MARK_ADD and FAN_MARK_FILESYSTEM, FAN_OPEN.
                let byHandle = Descriptor(owning: start(0x200, 0))
                #expect(mark(byHandle.raw, 0x1, 0x20, AT_FDCWD, mirror.at("f")) == 0)
                #expect(mark(byHandle.raw, 0x101, 0x20, AT_FDCWD, mirror.at("f")) == -1 && errno == ENODEV)
            }
        }
    }
}
