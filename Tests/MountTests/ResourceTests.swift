import CLinux
import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Threads, descriptors and memory of the daemon: what users can make it take of them, and what becomes of everybody
    /// else when they are short.
    @Suite struct Resources {
        /// Runs a Perl script as a user, with 4,000 descriptors.
        private func perl(_ user: Int, _ script: String, _ arguments: [String], in folder: String) throws -> Child {
            try Child(
                [
                    "setpriv", "--reuid=\(user)", "--regid=\(user)", "--clear-groups", "bash", "-c",
                    "ulimit -n 4000; exec perl -e \"$0\" -- \"$@\"", script,
                ] + arguments, in: folder)
        }

        @Test("700 programs wait for a lock without a thread each: all get it, and one that is killed is gone")
        func waiters() throws {
            let script = """
                use strict; $| = 1; open(my $file, "<", "file") or die; flock($file, 2) or die; my @children;
                for (1 .. 700) {
                    my $child = fork(); die "$!" unless defined $child;
                    if (!$child) { close $file; open(my $own, "<", "file") or exit 1; flock($own, 2) or exit 2; exit 0; }
                    push @children, $child;
                }
                sleep 1; my $killed = pop @children; kill 9, $killed; waitpid $killed, 0; print "killed: $?\\n";
                close $file; my $good = 0; for my $child (@children) { waitpid $child, 0; $good++ if $? == 0; }
                print "locked: $good\\n";
                """
            try withMirror(mounting: nil) { mirror throws in
                try File.put("content", mirror.remote("file"))
            } _: { mirror throws in
                // From the twentieth on, the system gives no thread.
                try mirror.start(failpoints: "thread.start:EAGAIN:20")
                let output = try Child(["perl", "-e", script], in: mirror.mount).wait(seconds: 100)
                #expect(output.out == "killed: 9\nlocked: 699\n", "\(output)\(mirror.log)")
                #expect(try mirror.status().pid == mirror.pid)
                #expect(try File.bytes(mirror.at("file")) == Array("content".utf8))
            }
        }

        @Test("A lock waits for a holder outside the mount, and for nobody else")
        func outside() throws {
            try withMirror(apart: true) { mirror throws in
                try File.put("content", mirror.remote("file"))
            } _: { mirror throws in
                let holder = try File.open(mirror.tree + "/file")
                #expect(lock(holder.raw, LOCK_SH) == 0)
                let reader = try File.open(mirror.at("file"))
                #expect(lock(reader.raw, LOCK_SH | LOCK_NB) == 0, "shared with the one outside")
                #expect(lock(reader.raw, LOCK_EX | LOCK_NB) == EWOULDBLOCK)
                let waiters = try ["2", "2", "1"].map { mode in
                    try Child(
                        ["perl", "-e", "open(my $f, '<', 'file'); flock($f, \(mode)); print 'locked'"], in: mirror.mount
                    )
                }
                // Two wait for an exclusive lock; the shared one is not in their way.
                #expect(try waiters[2].wait(seconds: 10).out == "locked")
                usleep(200_000)
                #expect(waiters[0].poll() == nil && waiters[1].poll() == nil)
                #expect(lock(holder.raw, LOCK_UN) == 0)
                for waiter in waiters[..<2] { #expect(try waiter.wait(seconds: 10).out == "locked") }
                #expect(lock(holder.raw, LOCK_EX | LOCK_NB) == 0, "nothing is left")
            }
        }

        /// The errno of flock(2), 0 without one.
        private func lock(_ file: Int32, _ operation: Int32) -> Int32 {
            passhsm_flock(file, operation) == 0 ? 0 : errno
        }

        /// What one user does with as many files as possible.
        enum Greed: String, CaseIterable {
            /// Files that the daemon reads and writes by itself.
            case open = "open($held[$_], '+<', \"f$_\") or last"
            case flock = "open($held[$_], '+<', \"f$_\") or last; flock($held[$_], 1) or last"
            case fsync = "open($held[$_], '+<', \"f$_\") or last; $held[$_]->sync or last"
            case opendir =
                "opendir($held[$_], 'folder') or last; readdir($held[$_]); readdir($held[$_]); readdir($held[$_])"

            var isBounded: Bool { self == .open || self == .flock }
        }

        @Test(
            "A user who takes all the daemon's descriptors that he gets leaves others theirs", arguments: Greed.allCases
        )
        func descriptors(greed: Greed) throws {
            let script = """
                use strict; use IO::Handle; $| = 1; my (@held, $count);
                for (0 .. $ARGV[0] - 1) { \(greed.rawValue); $count++; } print "$count $!\\n"; sleep 300 if $ARGV[1];
                """
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("late"), size: 3 << 20)
            } _: { mirror throws in
                let arguments = greed == .open ? ["--no-passthrough"] : []
                try mirror.start(arguments, by: ["prlimit", "--nofile=400:400"])
                try shell(
                    "chmod 777 .; for i in {0..499}; do echo $i >f$i; done; chmod 666 f*; mkdir folder; touch folder/{0..499}",
                    in: mirror.mount)
                let greedy = try perl(4001, script, ["500", "hold"], in: mirror.mount)
                try until("all that he gets", seconds: 60) { greedy.outputSoFar.hasSuffix("\n") }
                let count = Int(greedy.outputSoFar.prefix { $0 != " " }) ?? -1
                if greed.isBounded {
                    #expect(count > 50 && count < 300 && greedy.outputSoFar.contains("Too many open files"))
                } else {
                    #expect(count == 500, "\(greedy.outputSoFar)")
                }
                let other = try perl(4002, script, ["20", ""], in: mirror.mount).wait(seconds: 60)
                #expect(other.out.hasPrefix("20 "), "\(other)")
                #expect(try mirror.status().openDescriptors < 350)
                #expect(try File.sameContent(mirror.at("late"), mirror.remote("late")))
                greedy.kill(SIGKILL)
                _ = try greedy.wait(seconds: 20)
                // The kernel tells of closed files after their process has ended.
                try until("the releases") { try mirror.status().openHandles == 0 }
                let again = try perl(4001, script, ["\(greed.isBounded ? count : 500)", ""], in: mirror.mount)
                #expect(
                    try again.wait(seconds: 60).out.hasPrefix("\(greed.isBounded ? count : 500) "),
                    "all were given back")
            }
        }

        @Test("However many wait in a fanotify mount, status and fills have their descriptors")
        func events() throws {
            let script = """
                $| = 1; for (0 .. 449) { next if fork(); my $file; exit(open($file, "<", "f$_") ? 0 : $! + 0); }
                my %codes; for (0 .. 449) { wait; $codes{$? >> 8}++; print "ended\n" if !$_; }
                print join(" ", sort keys %codes), "\n";
                """
            try withMirror(mounting: nil) { mirror throws in
                for index in 0..<450 { try File.put("content", mirror.remote("f\(index)")) }
            } _: { mirror throws in
                try mirror.start(FrontEnd.fanotify.arguments, by: ["prlimit", "--nofile=400:400"])
                try mirror.hold()
                let readers = try Child(["perl", "-e", script], in: mirror.mount)
                try until("as many to wait as may") { try mirror.status().waiting >= 50 }
                // None that waits ends: the first to end is one that may not wait.
                try until("one that may not wait") { readers.outputSoFar == "ended\n" }
                #expect(try mirror.status().openDescriptors < 400)
                mirror.letGo()
                let output = try readers.wait(seconds: 60)
                #expect(output.out == "ended\n0 \(EAGAIN)\n", "\(output)\(mirror.log.suffix(2000))")
                #expect(try File.bytes(mirror.at("f449")) == Array("content".utf8))
            }
        }

        @Test("5,000 open directories take some hundred bytes each, and no descriptor")
        func directories() throws {
            let script = """
                use strict; $| = 1; my @held; for (0 .. 4999) { opendir($held[$_], "folder") or die "$!"; readdir($held[$_]) }
                rewinddir($held[0]); my @names = readdir($held[0]); print scalar(@names), "\\n"; sleep 300;
                """
            try withMirror { _ in
            } _: { mirror throws in
                try shell("mkdir folder; touch folder/{1..40}", in: mirror.mount)
                func memory() throws -> Int {
                    let text = try String(contentsOfFile: "/proc/\(mirror.pid)/status", encoding: .utf8)
                    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("VmRSS") })
                    return Int(line.split(separator: " ").dropLast().last ?? "") ?? 0
                }
                let (before, descriptors) = (try memory(), try mirror.status().openDescriptors)
                let opener = try Child(["bash", "-c", "ulimit -n 6000; exec perl -e \"$0\"", script], in: mirror.mount)
                try until("all to be open", seconds: 60) { opener.outputSoFar == "42\n" }
                // 64 of them have a buffer.
                #expect(try memory() < before + 20_000, "KiB")
                #expect(try mirror.status().openDescriptors < descriptors + 100)
                opener.kill(SIGKILL)
                _ = try opener.wait(seconds: 20)
            }
        }

        @Test(
            "A limit on the size of the daemon's files ends no daemon",
            arguments: ["100000:unlimited", "100000:100000"])
        func fileSize(limit: String) throws {
            try withMirror(mounting: nil) { mirror throws in
                try File.put("content", mirror.remote("file"))
            } _: { mirror throws in
                try mirror.start(["--no-passthrough"], by: ["prlimit", "--fsize=\(limit)"])
                let file = try File.open(mirror.at("new"), O_RDWR | O_CREAT)
                let result = pwrite(file.raw, [1], 1, 200_000)
                // A daemon that may not lift it says so.
                #expect(result == 1 || (limit.hasSuffix("100000") && errno == EFBIG))
                #expect(try File.bytes(mirror.at("file")) == Array("content".utf8))
            }
        }

        @Test("A daemon that is started without standard descriptors has /dev/null there")
        func standardDescriptors() throws {
            try withMirror(mounting: nil) { mirror throws in
                try File.put("content", mirror.remote("file"))
            } _: { mirror throws in
                let daemon = try Child([
                    "sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh", Machine.program, "mount", mirror.lower, mirror.mount,
                    "--foreground",
                ])
                try until("the mount") { mirror.isMounted && (try? passhsm("status", mirror.mount).code) == 0 }
                for number in 0...2 {
                    let path = "/proc/\(daemon.pid)/fd/\(number)"
                    #expect(try FileManager.default.destinationOfSymbolicLink(atPath: path) == "/dev/null")
                }
                #expect(try passhsm("unmount", mirror.mount).code == 0)
                #expect(try daemon.wait(seconds: 20).code == 0)
            }
        }

        @Test("A daemon that crashes ends at once, and says by what")
        func crash() throws {
            try withMirror { mirror throws in
                try File.put("content", mirror.remote("file"))
            } _: { mirror throws in
                let pid = mirror.pid
                kill(pid, SIGSEGV)
                // A backtrace takes more than ten, and stops all threads.
                try until("its end", seconds: 5) { !isRunning(pid) }
                #expect(mirror.log.contains("passhsm: ended by signal 11 in thread "))
                try mirror.killDaemon()
            }
        }

        @Test("A file that fails at each open is logged once a minute")
        func log() throws {
            try withMirror(mounting: nil) { mirror throws in
                for name in ["a", "b"] { try File.put("content", mirror.remote(name)) }
            } _: { mirror throws in
                try shell(
                    "setfattr -n trusted.passhsm -v nonsense a; setfattr -n trusted.passhsm -v nonsense b",
                    in: mirror.tree)
                try mirror.start()
                for _ in 0..<100 {
                    for name in ["a", "b"] { #expect(File.readError(mirror.at(name)) == EIO) }
                }
                func lines() -> Int { mirror.log.split(separator: "\n").count { $0.contains(" error ") } }
                // A line may come after the answer.
                try until("both lines") { lines() >= 2 }
                try mirror.stop()
                #expect(lines() == 2, "\(mirror.log.prefix(2000))")
            }
        }

        @Test("Every thread has the capabilities that a mount needs, and no others")
        func capabilities() throws {
            try withMirror { mirror throws in
                try File.put("content", mirror.remote("file"))
            } _: { mirror throws in
                #expect(try File.bytes(mirror.at("file")) == Array("content".utf8))
                // Of those that it gave up: NET_ADMIN, SYS_MODULE, SYS_RAWIO, SYS_BOOT, SYS_RESOURCE.
                let others = [12, 16, 17, 22, 24].reduce(UInt64(0)) { $0 | 1 << UInt64($1) }
                let folder = "/proc/\(mirror.pid)/task"
                for thread in try FileManager.default.contentsOfDirectory(atPath: folder) {
                    let text = (try? String(contentsOfFile: "\(folder)/\(thread)/status", encoding: .utf8)) ?? ""
                    for line in text.split(separator: "\n") where line.hasPrefix("CapEff") || line.hasPrefix("CapPrm") {
                        let bits = try #require(UInt64(line.split(separator: "\t").last ?? "", radix: 16))
                        #expect(bits & others == 0 && bits >> 21 & 1 == 1, "\(line)")
                    }
                }
            }
        }

        @Test("What a file system reserves for root, users do not get", arguments: [[], ["--no-passthrough"]])
        func reservedSpace(arguments: [String]) throws {
            try withScratch { scratch in
                let mirror = try Mirror(scratch, apart: true)
                do {
                    // Made of many small granules, so that it is cached and filled by the daemon.
                    try Pattern.write(mirror.remote("late"), size: 30 << 20)
                    try shell(
                        "truncate -s 200M image; mkfs.ext4 -q -m 20 image; mount -o loop image lower", in: scratch.path)
                    try mirror.importSource()
                    try mirror.start(arguments)
                    try shell("chmod 777 .", in: mirror.mount)
                    let user = "setpriv --reuid=4001 --regid=4001 --clear-groups "
                    let output = try run(["bash", "-c", user + "dd if=/dev/zero of=filler bs=1M"], in: mirror.mount)
                    #expect(output.err.contains("No space left on device"), "\(output)")
                    try shell("sync -f .", in: mirror.lower)
                    func space() throws -> [Int] {
                        try shell("stat -f -c '%f %a' .", in: mirror.lower).split(whereSeparator: \.isWhitespace)
                            .compactMap { Int($0) }
                    }
                    // Blocks of 1 KiB or 4 KiB: 20 of 100 are reserved.
                    let blocks = try shell("stat -f -c %b .", in: mirror.lower)
                    let reserved = (Int(blocks.filter(\.isNumber)) ?? 0) / 6
                    #expect(try space()[0] >= reserved, "a write")
                    #expect(
                        File.readError(mirror.at("late")) == ENOSPC, "root reads, and does not fill its reserve either")
                    #expect(try space()[0] >= reserved, "a fill")
                    try shell("rm filler; sync -f .", in: mirror.mount)
                    // The space is free when the kernel has forgotten the file.
                    try until("a fill with space") { try File.sameContent(mirror.at("late"), mirror.remote("late")) }
                    try mirror.stop()
                } catch {
                    _ = mirror.cleanUp()
                    umount2(mirror.lower, 0)
                    throw error
                }
                try #require(umount2(mirror.lower, 0) == 0)
            }
        }
    }
}
