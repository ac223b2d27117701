import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// More files open at once than the daemon could hold descriptors for, if it held several for each.
    @Suite struct OpenFiles {
        private static let count = 10_500

        /// Starts the daemon with the soft limit that most machines have.
        private func withUsualLimit(_ body: () throws -> Void) throws {
            let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
            var limit = rlimit()
            getrlimit(resource, &limit)
            guard limit.rlim_max >= UInt(Self.count + 2000) else {
                throw Failure("RLIMIT_NOFILE may be \(limit.rlim_max) at most here")
            }
            var usual = limit
            usual.rlim_cur = 1024
            setrlimit(resource, &usual)
            defer { setrlimit(resource, &limit) }
            try body()
        }

        /// Opens `count` files and keeps them, after it has checked some of them.
        private func opener(_ mirror: Mirror, _ folder: String, creating: Bool) throws -> Child {
            let script = """
                use strict; $| = 1; my @files; my $name = sub { sprintf("%05d", $_[0]) };
                for my $i (0 .. \(Self.count - 1)) {
                    open(my $file, $ARGV[0], $name->($i)) or die "opening $i: $!\\n"; push @files, $file;
                    if ($ARGV[0] eq "+>") { syswrite($file, $name->($i)) == 5 or die "writing $i: $!\\n"; }
                }
                for (my $i = 0; $i < @files; $i += 50) {
                    sysseek($files[$i], 0, 0); my $got;
                    defined sysread($files[$i], $got, 5) or die "reading $i: $!\\n";
                    $got eq $name->($i) or die "$i has $got\\n";
                }
                print "open\\n"; sleep 600;
                """
            let child = try Child(
                [
                    "bash", "-c", "ulimit -n $(ulimit -Hn); exec perl -e \"$1\" -- \"$2\"", "bash", script,
                    creating ? "+>" : "<",
                ], in: mirror.at(folder))
            try until("all to be open", seconds: 300) {
                if let output = child.poll() { throw Failure("\(output)\n\(mirror.log)") }
                return child.outputSoFar == "open\n"
            }
            return child
        }

        @Test("10,500 complete and 10,500 incomplete files are open at once, and the daemon's descriptors are bounded")
        func many() throws {
            try withMirror(mounting: nil, limit: 900) { mirror throws in
                // Larger than what is filled at open, and cheap: a hole with a name in front.
                mkdir(mirror.remote("incomplete"), 0o755)
                mkdir(mirror.remote("complete"), 0o755)
                for index in 0..<Self.count {
                    let name = String(repeating: "0", count: 5 - "\(index)".count) + "\(index)"
                    let file = try File.open(mirror.remote("incomplete/" + name), O_WRONLY | O_CREAT | O_TRUNC)
                    try file.put(Array(name.utf8), at: 0)
                    try file.truncate(to: Trees.fetchUnit + 1)
                }
            } _: { mirror throws in
                try withUsualLimit { try mirror.start(limit: 900) }
                let idle = try mirror.status().openDescriptors
                let complete = try opener(mirror, "complete", creating: true)
                #expect(try mirror.status().openDescriptors < idle + 300, "the kernel reads them alone")
                let incomplete = try opener(mirror, "incomplete", creating: false)
                var status = try mirror.status()
                #expect(status.openHandles >= 2 * Self.count)
                #expect((Self.count..<Self.count + 1500).contains(status.openDescriptors), "one each")
                #expect(try shell("echo new >new; cat new; rm new", in: mirror.mount) == "new\n")
                for child in [complete, incomplete] {
                    child.kill(SIGKILL)
                    _ = try child.wait(seconds: 60)
                }
                try until("the files to be put down", seconds: 120) {
                    status = try mirror.status()
                    return status.openHandles == 0 && status.openDescriptors < idle + 20
                }
                #expect(!mirror.log.contains("Too many open files"))
            }
        }
    }
}
