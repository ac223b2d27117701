import Foundation
import Glibc
import TestSupport
import Testing

extension MountTests {
    /// A lower directory of which nothing is mounted, and how it becomes a mount.
    @Suite struct Unmounted {
        private static let size = 300_000

        private func withFiles(apart: Bool = false, _ body: (Mirror) throws -> Void) throws {
            try withMirror(apart: apart, mounting: nil) { mirror throws in
                mkdir(mirror.remote("dir"), 0o755)
                for name in ["stub", "dir/stub2"] { try Pattern.write(mirror.remote(name), size: Self.size) }
            } _: { mirror throws in
                try body(mirror)
            }
        }

        /// Programs that look for files, as another user, and as root outside of the store's own folder, find the note only.
        private func expectNote(_ mirror: Mirror, _ when: String) throws {
            let user = "setpriv --reuid=65534 --regid=65534 --clear-groups"
            let looks = [
                "\(user) find . 2>/dev/null", "\(user) du -ab . 2>/dev/null",
                "\(user) rsync -rn -vv ./ /nowhere/ 2>/dev/null",
                "\(user) tar cf - . 2>/dev/null | tar t", "find . -path ./.passhsm -prune -o -print",
                "tar c --exclude=./.passhsm . | tar t", "tar c --exclude-caches . | tar t", "ls",
            ]
            for look in looks {
                let output = try run(["bash", "-c", look], in: mirror.lower)
                #expect(
                    output.out.contains("NOT-MOUNTED.txt") && !output.out.contains("stub"),
                    "\(when): \(look): \(output)")
            }
            for name in ["stub", "dir", "dir/stub2"] {
                #expect(access("\(mirror.lower)/\(name)", F_OK) != 0, "\(when): \(name)")
            }
            #expect(try File.stat(mirror.lower + "/.passhsm").st_mode & 0o777 == 0o700)
            let tag = try File.stat(mirror.lower + "/.passhsm/CACHEDIR.TAG")
            #expect(tag.st_mode & 0o7777 == 0o600 && tag.st_uid == geteuid(), "\(when)")
            #expect(try run(["cat", mirror.lower + "/NOT-MOUNTED.txt"]).out.contains("passhsm mount"))
        }

        private func expectFiles(_ mirror: Mirror) throws {
            for name in ["stub", "dir/stub2"] { #expect(try File.sameContent(mirror.at(name), mirror.remote(name))) }
            #expect(try shell("ls -A; find . -name '.passhsm' -o -name 'NOT-*'", in: mirror.mount) == "dir\nstub\n")
        }

        @Test(
            "Before the mount, after unmount, a failed start, and kill -9 and unmount, no program finds a stub",
            arguments: FrontEnd.allCases)
        func noStubs(frontEnd: FrontEnd) throws {
            try withFiles { mirror throws in
                try expectNote(mirror, "after the import")
                let failed = try run(
                    [Machine.program, "mount", mirror.lower, "--simulate", "nonsense=1"] + frontEnd.arguments)
                #expect(failed.code != 0 && !mirror.isMounted)
                try expectNote(mirror, "after a failed start")
                try mirror.start(frontEnd.arguments)
                try expectFiles(mirror)
                try mirror.stop()
                try expectNote(mirror, "after unmount")
                try mirror.start(frontEnd.arguments)
                try mirror.killDaemon(detaching: false)
                #expect(try passhsm("unmount", mirror.mount).code == 0)
                try until("the end of the mount") { !mirror.isMounted }
                try expectNote(mirror, "after kill -9 and unmount")
                // As an earlier version left it.
                unlink(mirror.lower + "/.passhsm/CACHEDIR.TAG")
                try mirror.start(frontEnd.arguments)
                try expectFiles(mirror)
                try mirror.stop()
                try expectNote(mirror, "after the mount of a store without a tag")
            }
        }

        @Test("Without a mount point it is the lower directory itself", arguments: FrontEnd.allCases)
        func shortForm(frontEnd: FrontEnd) throws {
            try withFiles { mirror throws in
                let log = ["--log", mirror.logPath]
                let output = try run([Machine.program, "mount", mirror.lower] + log + frontEnd.arguments)
                #expect(output.code == 0 && output.out.contains("on \(mirror.lower) "), "\(output)")
                try expectFiles(mirror)
                #expect(try passhsm("unmount", mirror.lower).code == 0)
                #expect(!mirror.isMounted)
            }
        }

        @Test("Commands take the paths that a mount shows, while it is mounted and while it is not")
        func paths() throws {
            try withFiles(apart: true) { mirror throws in
                func expect(_ arguments: [String], _ text: String, code: Int32 = 0) throws {
                    let output = try run([Machine.program] + arguments, in: mirror.lower)
                    #expect(output.code == code && (output.out + output.err).contains(text), "\(arguments): \(output)")
                }
                for isMounted in [false, true] {
                    if isMounted { try mirror.start() }
                    try expect(["pin", "stub"], "1 file pinned")
                    try expect(["state", mirror.lower + "/stub"], "pinned")
                    try expect(["state", ".passhsm/tree/stub"], "pinned")
                    try expect(["unpin", "-r", "."], "2 files unpinned")
                    try expect(["unpin", "./dir/../dir/stub2"], "1 file unpinned")
                    try expect(["release", mirror.lower + "/dir/stub2"], "1 file released")
                    try expect(["release", "dir"], "\(mirror.lower)/dir: it is not a regular file", code: 1)
                    for command in ["state", "pin"] { try expect([command, "none"], "none: No such file", code: 1) }
                }
                try expect(["recall", "dir/stub2"], "1 file recalled")
                try mirror.stop()
                try expect(["state", "dir/stub2"], "dual")
                try expect(["verify", "."], "nothing wrong")
            }
        }

        @Test("Local files are in the mount after an import, and under their names again nowhere else")
        func adopted() throws {
            try withMirror(mounting: nil) { mirror throws in
                try shell("mkdir dir; echo stub >stub; echo stub >dir/stub2", in: mirror.source)
                try shell(
                    "mkdir -p dir own/deep; echo mine >dir/mine; echo mine >own/deep/file; echo x >NOT-MOUNTED.txt",
                    in: mirror.lower)
            } _: { mirror throws in
                try expectNote(mirror, "after the import")
                try mirror.start()
                #expect(
                    try shell("find . -type f | sort", in: mirror.mount)
                        == "./NOT-MOUNTED.txt\n./dir/mine\n./dir/stub2\n./own/deep/file\n./stub\n")
                #expect(try shell("cat dir/mine own/deep/file NOT-MOUNTED.txt", in: mirror.mount) == "mine\nmine\nx\n")
                try mirror.stop()
                // Made while nothing is mounted: the next mount says that it does not show it, the next import moves it in.
                try shell("echo late >late", in: mirror.lower)
                let output = try run([Machine.program, "mount", mirror.lower, "--log", mirror.logPath])
                #expect(output.out.contains("late in \(mirror.lower) itself"), "\(output)")
                #expect(try passhsm("unmount", mirror.lower).code == 0)
                try mirror.importSource()
                try mirror.start()
                #expect(try shell("cat late", in: mirror.mount) == "late\n")
                try mirror.stop()
            }
        }

        @Test(
            "An import into a mount is refused, live or dead, and makes no second store", arguments: FrontEnd.allCases)
        func intoMount(frontEnd: FrontEnd) throws {
            try withFiles { mirror throws in
                try mirror.start(frontEnd.arguments)
                for place in ["", "/dir"] {
                    let output = try passhsm("import", mirror.source, mirror.mount + place)
                    #expect(
                        output.code == 1
                            && output.err.contains(place.isEmpty ? "is in the mount on \(mirror.mount)" : "mount"),
                        "\(output)")
                }
                try mirror.killDaemon(detaching: false)
                #expect(try passhsm("import", mirror.source, mirror.mount).code == 1)
                try mirror.start(frontEnd.arguments)
                try expectFiles(mirror)
                try mirror.stop()
            }
        }
    }
}
