import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// How a mount begins and ends, and how commands fail.
    @Suite struct Life {
        enum End: CaseIterable { case unmount, umount, terminate, interrupt, force }

        private func end(_ mirror: Mirror, _ way: End) throws {
            switch way {
            case .unmount: #expect(try passhsm("unmount", mirror.mount).code == 0)
            case .force: #expect(try passhsm("unmount", mirror.mount, "--force").code == 0)
            case .umount: #expect(try run(["umount", mirror.mount]).code == 0)
            case .terminate: Glibc.kill(mirror.pid, SIGTERM)
            case .interrupt: Glibc.kill(mirror.pid, SIGINT)
            }
            try mirror.awaitEnd()
        }

        @Test(
            "passhsm unmount, umount, SIGTERM and SIGINT end it cleanly; what was read and written is there next time",
            arguments: End.allCases, [true, false])
        func ends(way: End, apart: Bool) throws {
            try withMirror(apart: apart, mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("read"), size: 300_000)
                try Pattern.write(mirror.remote("part"), size: 5 << 20)
            } _: { mirror throws in
                try mirror.start(["--fill", "read"])
                _ = try File.bytes(mirror.at("read"))
                _ = try File.bytes(mirror.at("part"), 0..<1)
                try File.put("written", mirror.at("new"))
                let present = try mirror.state("part").presentBytes
                try end(mirror, way)
                #expect(try mirror.state("read", inLower: true).state == "dual")
                #expect(try mirror.state("part", inLower: true).presentBytes == present)
                try mirror.start(["--fill", "read"])
                try mirror.hold()
                #expect(try File.bytes(mirror.at("read")) == Pattern.bytes(0..<300_000))
                #expect(try File.bytes(mirror.at("part"), 0..<1) == Pattern.bytes(0..<1))
                #expect(try File.bytes(mirror.at("new")) == Array("written".utf8))
                #expect(try mirror.status().counter("fetches") == 0)
                try end(mirror, way)
            }
        }

        @Test("In the foreground it serves until it is told to end, and returns 0")
        func foreground() throws {
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 1000)
            } _: { mirror throws in
                let daemon = try Child([Machine.program, "mount", mirror.lower, mirror.mount, "--foreground"])
                try until("the mount") { mirror.isMounted || daemon.poll() != nil }
                try until("status") { (try? mirror.status().pid) == daemon.pid }
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
                daemon.kill(SIGTERM)
                let output = try daemon.wait(seconds: 20)
                #expect(output.code == 0, "\(output)")
                #expect(!mirror.isMounted)
            }
        }

        @Test("A used mount is not unmounted without force, and stays usable")
        func busy() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 1000)
            } _: { mirror throws in
                do {
                    let file = try File.open(mirror.at("file"))
                    let output = try passhsm("unmount", mirror.mount)
                    #expect(output.code != 0 && output.err.contains("busy"))
                    #expect(try file.bytes(0..<1000) == Pattern.bytes(0..<1000))
                }
                try mirror.stop()
            }
        }

        @Test("A refused unmount fails no reader: what waits is ended only where nothing else keeps the mount busy")
        func busyAndWaiting() throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 1000)
                try Pattern.write(mirror.remote("held"), size: 1000)
            } _: { mirror throws in
                let held = try File.open(mirror.at("held"))
                try mirror.hold()
                let reader = try Child(["cmp", mirror.at("file"), mirror.remote("file")])
                try until("the read to wait") { try mirror.status().waiting > 0 }
                let output = try passhsm("unmount", mirror.mount)
                #expect(output.code != 0 && output.err.contains("busy") && output.err.contains("/held"), "\(output)")
                mirror.letGo()
                let read = try reader.wait(seconds: 20)
                #expect(read.code == 0, "\(read)")
                withExtendedLifetime(held) {}
            }
        }

        @Test("--log-level says how much a daemon logs, with either front end", arguments: FrontEnd.allCases)
        func logLevel(frontEnd: FrontEnd) throws {
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 1000)
            } _: { mirror throws in
                /// Whether errors, notes of its life, and details are in the log of a daemon.
                func logged(_ level: [String]) throws -> [Bool] {
                    unlink(mirror.logPath)
                    try mirror.start(frontEnd.arguments + ["--fill", "open"] + level)
                    try mirror.fail(true)
                    #expect(File.readError(mirror.at("file")) == EIO)
                    try mirror.fail(false)
                    try mirror.stop()
                    return ["simulated remote fails", "mounted \(mirror.lower)", "settings: fill=open"].map { text in
                        mirror.log.contains(text)
                    }
                }
                #expect(try logged([]) == [true, true, false])
                #expect(try logged(["--log-level", "error"]) == [true, false, false])
                #expect(try logged(["--log-level", "info"]) == [true, true, false])
                #expect(try logged(["--log-level", "debug"]) == [true, true, true])
                let output = try passhsm("mount", mirror.lower, "--log-level", "trace")
                #expect(output.code == 64 && output.err.contains("one of error, warning, info, debug"), "\(output)")
            }
        }

        @Test("SIGHUP opens the log again by its name, and the mount goes on")
        func reload() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 1000)
            } _: { mirror throws in
                #expect(rename(mirror.logPath, mirror.logPath + ".old") == 0)
                Glibc.kill(mirror.pid, SIGHUP)
                try until("the new log") { mirror.log.contains("opened again") }
                unlink(mirror.remote("file"))
                #expect(File.readError(mirror.at("file")) == EIO)
                #expect(mirror.log.contains("file"))
                // Where it cannot be opened, the old one goes on.
                #expect(rename(mirror.logPath, mirror.logPath + ".moved") == 0)
                #expect(symlink("/etc/hostname", mirror.logPath) == 0)
                Glibc.kill(mirror.pid, SIGHUP)
                try until("the refusal") {
                    try String(contentsOfFile: mirror.logPath + ".moved", encoding: .utf8).contains("cannot be opened")
                }
                unlink(mirror.logPath)
                try mirror.stop()
            }
        }

        @Test("After kill -9 of the daemon callers get an error, and unmount and mount put it right")
        func killed() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 1000)
            } _: { mirror throws in
                Glibc.kill(mirror.pid, SIGKILL)
                try until("the end") { !isRunning(mirror.pid) }
                // ECONNABORTED: asked while the connection was being torn down.
                #expect([ENOTCONN, ECONNABORTED].contains(File.readError(mirror.at("file"))))
                let status = try passhsm("status", mirror.mount)
                #expect(status.code != 0 && status.err.contains("unmount"), "\(status)")
                #expect(try passhsm("unmount", mirror.mount).code == 0)
                try mirror.awaitEnd()
                try mirror.start()
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
            }
        }

        @Test(
            "A mount takes its own dead one away first: at the same place, and of the same lower directory elsewhere",
            arguments: [true, false], [true, false])
        func overDead(apart: Bool, elsewhere: Bool) throws {
            try withMirror(apart: apart) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 1000)
            } _: { mirror throws in
                try mirror.killDaemon(detaching: false)
                #expect(mirror.isMounted)
                let place = elsewhere ? mirror.scratch.path + "/else where" : mirror.mount
                mkdir(place, 0o755)
                let output = try passhsm("mount", mirror.lower, place, "--log", mirror.logPath)
                #expect(output.code == 0 && output.err.contains("its daemon was gone"), "\(output)")
                #expect(try File.sameContent(place + "/file", mirror.remote("file")))
                #expect(mirror.isMounted == !elsewhere)
                #expect(try passhsm("unmount", place).code == 0)
                #expect(!mirror.isMounted)
            }
        }

        @Test("Those who may not ask a daemon are told whose it is, and not that it is gone")
        func statusOfAnother() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 1000)
            } _: { mirror throws in
                // The build may be where others cannot go.
                let script = """
                    cp "$1" "$2/passhsm"; chmod 755 "$2/passhsm"
                    for command in status unmount; do
                        setpriv --reuid=1234 --regid=1234 --clear-groups "$2/passhsm" $command "$3" 2>&1 && echo done
                    done; true
                    """
                let text = try shell(script, [Machine.program, mirror.scratch.path, mirror.mount])
                let reason = "is a mount of user 0; only user 0 can ask its daemon"
                let line = "passhsm: \(mirror.mount) \(reason)\n"
                #expect(text == line + line)
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
            }
        }

        @Test("A second mount of the same lower directory is refused with the reason, and the first serves on")
        func twice() throws {
            try withMirror(apart: true) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 1000)
            } _: { mirror throws in
                for target in [mirror.mount, mirror.scratch.path + "/other"] {
                    mkdir(target, 0o755)
                    let output = try passhsm("mount", mirror.lower, target)
                    #expect(output.code != 0 && output.err.contains("already mounted"))
                }
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
            }
        }

        @Test(
            "A mount waits for the daemon of the one before, which was unmounted and has not ended",
            arguments: [true, false])
        func afterUnmount(apart: Bool) throws {
            try withMirror(apart: apart) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 1000)
            } _: { mirror throws in
                // The call itself, which needs no answer of the daemon: umount(8) asks for attributes first.
                Glibc.kill(mirror.pid, SIGSTOP)
                #expect(umount2(mirror.mount, 0) == 0)
                let next = try Child([Machine.program, "mount", mirror.lower, mirror.mount, "--log", mirror.logPath])
                usleep(700_000)
                let early = next.poll()
                Glibc.kill(mirror.pid, SIGCONT)
                let output = try next.wait(seconds: 60)
                #expect(early == nil && output.code == 0, "\(output)")
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
            }
        }

        @Test("A registry that others could enter is refused by its name, with what it has to be")
        func openRegistry() throws {
            try withMirror(apart: true, mounting: nil) { _ throws in
            } _: { mirror throws in
                let script = """
                    mkdir -m 0700 -p /run/passhsm && mount -t tmpfs -o mode=0755 tmpfs /run/passhsm && "$0" mount "$1" "$2" 2>&1
                    true
                    """
                let arguments = ["unshare", "-m", "sh", "-c", script, Machine.program, mirror.lower, mirror.mount]
                let output = try run(arguments)
                #expect(output.out.contains("/run/passhsm") && output.out.contains("0700"), "\(output)")
            }
        }

        @Test("Bad arguments are refused with the name and the reason")
        func badArguments() throws {
            try withMirror(apart: true, mounting: nil) { mirror throws in
                try File.put("x", mirror.remote("file"))
            } _: { mirror throws in
                let (file, missing) = (mirror.remote("file"), mirror.scratch.path + "/missing")
                let fresh = mirror.scratch.path + "/fresh"
                for (arguments, reason) in [
                    (["import", missing, fresh], "does not exist"), (["import", file, fresh], "not a directory"),
                    (["import", mirror.source, file], "Not a directory"),
                    (["mount", missing, mirror.mount], "No such file"),
                    (["mount", mirror.lower, missing], "No such file"),
                    (["mount", file, mirror.mount], "Not a directory"),
                    (["mount", mirror.lower, file], "Not a directory"),
                    (["unmount", mirror.mount], "not mounted"), (["status", mirror.mount], "no daemon"),
                    (["state", missing], "No such file"),
                    (["mount", mirror.lower, mirror.mount, "--simulate", "nonsense=1"], "nonsense"),
                ] {
                    let output = try run([Machine.program] + arguments)
                    #expect(output.code != 0, "\(arguments)")
                    #expect(output.err.contains(reason), "\(arguments): \(output.err)")
                    #expect(!mirror.isMounted)
                }
                #expect(try run([Machine.program, "mount", mirror.lower, mirror.mount, "--fill", "never"]).code != 0)
            }
        }

        @Test("Other users use the mount as the permissions say, and cannot talk to the daemon")
        func users() throws {
            try withMirror { mirror throws in
                try shell(
                    "echo open >open; echo closed >closed; chmod 644 open; chmod 600 closed; mkdir -m 777 all",
                    in: mirror.source)
            } _: { mirror throws in
                try shell("chmod 755 \"$1\"", [mirror.scratch.path])
                let user = "setpriv --reuid 1234 --regid 1234 --clear-groups "
                #expect(try shell(user + "cat open", in: mirror.mount) == "open\n")
                #expect(try run(["bash", "-c", user + "cat closed"], in: mirror.mount).code != 0)
                try shell(
                    user + "bash -c 'umask 027; echo own >all/own; mkdir all/dir; ln -s x all/link'", in: mirror.mount)
                #expect(
                    try shell("stat -c '%u:%g %a' all/own all/dir", in: mirror.mount)
                        == "1234:1234 640\n1234:1234 750\n")
                let status = try shell(
                    "find /run/passhsm* -type s -exec \(user) test -r {} ';' -print 2>/dev/null || true")
                #expect(status == "", "no socket that others can reach")
            }
        }

        @Test("Names cannot write lines of their own into the log, nor anything that a terminal obeys")
        func hostileNames() throws {
            let name = "evil\n2026-01-01 error passhsm: forged \u{1b}]0;title\u{7}"
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote(name), size: 100)
            } _: { mirror throws in
                try mirror.start()
                unlink(mirror.remote(name))
                #expect(File.readError(mirror.at(name)) == EIO)
                // The name of the tree is the user's too.
                let output = try passhsm("state", mirror.at(name), mirror.lower)
                let status = try passhsm("status", mirror.mount)
                #expect(mirror.log.contains("forged") && status.out.contains("forged"))
                for text in [mirror.log, output.out, output.err, status.out] {
                    #expect(!text.contains("\u{1b}") && !text.contains("\u{7}"))
                    #expect(!text.split(separator: "\n").contains { $0.hasPrefix("2026-01-01 error passhsm: forged") })
                }
                try mirror.stop()
            }
        }

        @Test("doctor says what this machine gives, and finds what a mount needs")
        func doctor() throws {
            try withScratch { scratch in
                for arguments in [["doctor"], ["doctor", scratch.path]] {
                    let output = try run([Machine.program] + arguments)
                    #expect(output.code == 0, "\(output)")
                    for word in ["kernel", "fuse", "passthrough", "fanotify"] {
                        #expect(output.out.lowercased().contains(word), "\(word)")
                    }
                }
            }
        }
    }
}
