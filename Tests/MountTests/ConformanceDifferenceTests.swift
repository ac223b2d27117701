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
                let outside = try File.open(mirror.lower + "/known", O_RDWR)
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

        @Test("Setgid without group execution goes for members of supplementary groups too")
        func mandatoryLocking() throws {
            try onMount { mirror throws in
                try shell(
                    """
                    chown 0:100 f; chmod 6766 f
                    setpriv --reuid=65534 --regid=65534 --groups=100 bash -c 'echo x >>f'
                    """, in: mirror.mount)
                #expect(try File.stat(mirror.at("f")).st_mode & 0o7777 == 0o766)
            }
        }
    }
}
