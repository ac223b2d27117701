import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests.Waiting {
    @Test("A signal that a waiting process handles, or that stops it, does not break its open or read")
    func handledSignals() throws {
        try withMirror { mirror throws in
            for name in ["small", "stopped"] { try Pattern.write(mirror.remote(name), size: 5000) }
            try Pattern.write(mirror.remote("large"), size: 3 << 20)
        } _: { mirror throws in
            try mirror.hold()
            let script = """
                use Time::HiRes "ualarm"; $SIG{ALRM} = sub { $count++ }; ualarm(20_000, 20_000);
                open(my $file, "<", $ARGV[0]) or die "open: $!\\n"; my $bytes;
                (sysread($file, $bytes, 1000) // die "read: $!\\n") == 1000 or die "short\\n"; print $count > 0;
                """
            let readers = try ["small", "large"].map { try Child(["perl", "-e", script, mirror.at($0)]) }
            let stopped = try Child(["cmp", mirror.remote("stopped"), mirror.at("stopped")])
            try until("all to wait") { try mirror.status().waiting >= 3 }
            stopped.kill(SIGSTOP)
            // Long enough for the daemon to have looked again.
            usleep(1_500_000)
            stopped.kill(SIGCONT)
            usleep(200_000)
            #expect(readers.allSatisfy { $0.poll() == nil } && stopped.poll() == nil)
            mirror.letGo()
            for reader in readers {
                let output = try reader.wait(seconds: 20)
                #expect(output.code == 0 && output.out == "1", "\(output)")
            }
            #expect(try stopped.wait(seconds: 20).code == 0)
        }
    }

    @Test("A process that got a signal it handles still dies of the next one", arguments: [SIGKILL, SIGTERM, SIGQUIT])
    func secondSignal(signal: Int32) throws {
        try withMirror { mirror throws in
            try Pattern.write(mirror.remote("small"), size: 5000)
        } _: { mirror throws in
            try mirror.hold()
            let reader = try Child([
                "perl", "-e", "$SIG{HUP} = sub {}; open(my $file, '<', $ARGV[0]); print 'on'", mirror.at("small"),
            ])
            try until("it to wait") { try mirror.status().waiting == 1 }
            reader.kill(SIGHUP)
            usleep(100_000)
            reader.kill(signal)
            #expect(try reader.wait(seconds: 5).code == 128 + signal)
            try until("it to be forgotten") { try mirror.status().waiting == 0 }
        }
    }

    @Test(
        "A process that waits in a page fault dies at once; its fill is cancelled, unless it closed the descriptor before",
        arguments: [true, false])
    func pageFault(isClosed: Bool) throws {
        let size = 3 << 20
        try withMirror(mounting: ["--fill", "read"]) { mirror throws in
            try Pattern.write(mirror.remote("file"), size: size, seed: 5)
        } _: { mirror throws in
            let program = mirror.scratch.path + "/fault"
            try shell(
                """
                gcc -o "$1" -xc - <<'C'
                #include <fcntl.h>
                #include <sys/mman.h>
                #include <unistd.h>
                int main(int count, char **names)
                {
                    int file = open(names[1], O_RDONLY);
                    char *bytes = mmap(0, 1 << 20, PROT_READ, MAP_SHARED, file, 0);
                    if (count > 2) close(file);
                    return bytes[70000];
                }
                C
                """, [program])
            try mirror.hold()
            let reader = try Child([program, mirror.at("file")] + (isClosed ? ["close"] : []))
            try until("it to wait") { try mirror.status().waiting >= 1 }
            reader.kill(SIGKILL)
            #expect(try reader.wait(seconds: 5).code == 128 + SIGKILL)
            if !isClosed { try until("it to be forgotten") { try mirror.status().waiting == 0 } }
            mirror.letGo()
            if isClosed { try until("its fill") { try mirror.state("file").presentBytes > 0 } }
            #expect(try File.bytes(mirror.at("file")) == Pattern.bytes(0..<size, seed: 5))
        }
    }

    /// The kernel's own locks on a file, and the daemon's.
    enum Lock: String, CaseIterable {
        case flock = "flock($file, 2)"
        case posix = "fcntl($file, 7, my $lock = pack('ssx4qqlx4', 1, 0, 0, 0, 0))"
        case ofd = "fcntl($file, 38, my $lock = pack('ssx4qqlx4', 1, 0, 0, 0, 0))"
    }

    @Test("Waiting for a lock ends with any signal", arguments: Lock.allCases, [SIGALRM, SIGTERM, SIGKILL])
    func lockWait(lock: Lock, signal: Int32) throws {
        try withMirror { mirror throws in
            try Pattern.write(mirror.remote("file"), size: 10)
        } _: { mirror throws in
            func locker(_ then: String) throws -> Child {
                try Child([
                    "perl", "-e",
                    """
                    $| = 1; $SIG{ALRM} = sub {}; open(my $file, "+<", $ARGV[0]) or die; print "open\\n";
                    print \(lock.rawValue) ? "locked\\n" : "$!\\n"; \(then)
                    """, mirror.at("file"),
                ])
            }
            let holder = try locker("sleep 100")
            try until("the lock") { holder.outputSoFar.contains("locked") }
            let waiter = try locker("")
            try until("the waiter") { waiter.outputSoFar == "open\n" }
            usleep(100_000)
            #expect(waiter.poll() == nil)
            waiter.kill(signal)
            let output = try waiter.wait(seconds: 5)
            if signal == SIGALRM {
                #expect(output.out == "open\nInterrupted system call\n")
            } else {
                #expect(output.code == 128 + signal)
            }
            holder.kill(SIGKILL)
            _ = try holder.wait(seconds: 5)
            #expect(try locker("").wait(seconds: 5).out == "open\nlocked\n", "nothing of the interrupted is left")
        }
    }
}
