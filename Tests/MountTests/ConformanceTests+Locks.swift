import Glibc
import HSMSystem

extension ConformanceCase {
    /// Two processes and a record lock; `%s` numbers are those of Linux's fcntl(2) for 64-bit machines.
    private static func recordLocks(_ kind: String, get: Int, set: Int, wait: Int) -> ConformanceCase {
        ConformanceCase(
            "\(kind) locks",
            script: """
                cat >script.pl <<'PERL'
                use strict; use Fcntl; $| = 1;
                my ($get, $set, $wait) = (\(get), \(set), \(wait));
                my $parent = $$;
                sub lock_of { my ($type, $start, $length) = @_; return pack("ssx4qqlx4", $type, 0, $start, $length, 0); }
                sub try_lock { my ($file, $what, @lock) = @_; return fcntl($file, $what, lock_of(@lock)) ? "ok" : "$!"; }
                sub ask { my ($file, @lock) = @_; my $lock = lock_of(@lock); fcntl($file, $get, $lock) or return "$!";
                    my ($type, undef, $start, $length, $pid) = unpack("ssx4qqlx4", $lock);
                    return $type == 2 ? "free" : "$type $start $length " . ($pid == $parent ? "parent" : $pid); }
                open(my $file, "+>", "file") or die; print $file "x" x 1000; $file->flush;
                print "taken: ", try_lock($file, $set, F_WRLCK, 0, 100), ", ", try_lock($file, $set, F_RDLCK, 200, 100), "\\n";
                pipe(my $in, my $go) or die; pipe(my $back, my $done) or die;
                my $child = fork();
                if (!$child) {
                    close $go; close $back; close $file if $set != 6;
                    open(my $own, "+<", "file") or die;
                    print "conflict: ", try_lock($own, $set, F_WRLCK, 50, 1), "\\n";
                    print "beside: ", try_lock($own, $set, F_WRLCK, 100, 50), "\\n";
                    print "shared: ", try_lock($own, $set, F_RDLCK, 200, 50), "\\n";
                    print "upgrade: ", try_lock($own, $set, F_WRLCK, 200, 50), "\\n";
                    print "asked: ", ask($own, F_WRLCK, 10, 10), "; ", ask($own, F_WRLCK, 500, 10), "\\n";
                    local $SIG{ALRM} = sub { print "signal\\n" }; alarm 1;
                    print "waited: ", try_lock($own, $wait, F_WRLCK, 0, 10), "\\n";
                    syswrite $done, "1"; sysread $in, my $byte, 1;
                    print "after release: ", try_lock($own, $wait, F_WRLCK, 0, 100), "\\n";
                    syswrite $done, "2"; sleep 100; exit;
                }
                close $in; close $done; sysread $back, my $byte, 1;
                if ($set == 6) { open(my $other, "<", "file"); close $other; } else { close $file; }
                syswrite $go, "1"; sysread $back, $byte, 1;
                open($file, "+<", "file");
                print "the child's: ", try_lock($file, $set, F_WRLCK, 0, 1), "\\n";
                kill 9, $child; waitpid $child, 0;
                print "of the dead: ", try_lock($file, $set, F_WRLCK, 0, 0), "\\n";
                PERL
                timeout 60 perl script.pl
                """)
    }

    static let locks: [ConformanceCase] = [
        // A POSIX lock goes with any descriptor of the file that its process closes, an OFD lock with its own last one.
        recordLocks("POSIX", get: 5, set: 6, wait: 7),
        recordLocks("OFD", get: 36, set: 37, wait: 38),
        ConformanceCase(
            "leases",
            script: """
                cat >script.pl <<'PERL'
                use strict; use Fcntl; $| = 1; my ($set, $get, $told) = (1024, 1025, 0); $SIG{IO} = sub { $told++ };
                sub lease { my ($file, $type) = @_; return defined fcntl($file, $set, $type) ? "ok" : "$!"; }
                open(my $made, ">", "file"); close $made;
                open(my $file, "<", "file"); print "read: ", lease($file, F_RDLCK), " ", fcntl($file, $get, 0) + 0, "\\n";
                sub open_in_child { my ($how) = @_; my $child = fork(); return $child if $child;
                    open(my $other, $how, "file") or die; print "opened\\n"; exit 0; }
                my $reader = open_in_child("<"); waitpid $reader, 0; print "told of a reader: $told\\n";
                my $writer = open_in_child("+<"); select(undef, undef, undef, 0.05) until $told;
                print "told of a writer, which waits: ", waitpid($writer, 1), "\\n";
                my $back = lease($file, F_UNLCK); waitpid $writer, 0; print "given back: $back\\n"; close $file;
                open($file, "<", "file"); print "write: ", lease($file, F_WRLCK), " ", fcntl($file, $get, 0) + 0, "\\n";
                $told = 0; $reader = open_in_child("<"); select(undef, undef, undef, 0.05) until $told;
                $back = lease($file, F_RDLCK); waitpid $reader, 0; print "downgraded: $back\\n";
                PERL
                timeout 60 perl script.pl
                """),
        ConformanceCase("inotify") { log in
            let watch = inotify_init1(O_NONBLOCK)
            defer { close(watch) }
            mkdir(log.at("sub"), 0o755)
            let all: UInt32 = 0xfff  // IN_ALL_EVENTS
            for name in ["", "sub"] { log.note("watch", inotify_add_watch(watch, log.at(name), all)) }
            try shell(
                """
                echo one >file; echo two >>file; cat file >/dev/null; mv file sub/moved; ln sub/moved hard; chmod 600 hard
                truncate -s 1 hard; touch -d @5 hard; ln -s nowhere link; mkfifo fifo; rm sub/moved; mv hard file; rmdir sub
                mkdir again; setfattr -n user.a -v b file
                """, in: log.directory)
            var buffer = [UInt8](repeating: 0, count: 64 << 10)
            let count = read(watch, &buffer, buffer.count)
            var offset = 0
            while offset < count {
                let words = buffer[offset..<offset + 16].withUnsafeBytes { $0.loadUnaligned(as: SIMD4<UInt32>.self) }
                let name = buffer[offset + 16..<offset + 16 + Int(words[3])].prefix { $0 != 0 }
                log.text("\(words[0])", "\(String(words[1], radix: 16)) \(String(decoding: name, as: UTF8.self))")
                offset += 16 + Int(words[3])
            }
        },
    ]
}
