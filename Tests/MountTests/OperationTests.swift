import CLinux
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// The mount does what a plain directory does.
    @Suite struct Operations {
        /// The same script on a plain directory and on the mount; both must then look the same, and give the same output.
        private func compare(_ script: String) throws {
            try withMirror { mirror throws in
                try Trees.special(mirror.source)
            } _: { mirror throws in
                let plain = mirror.scratch.path + "/plain"
                try shell("cp -a \"$1\" \"$2\"", [mirror.source, plain])
                let outputs = try [plain, mirror.mount].map {
                    try run(["bash", "-c", "set -u\n" + script], in: $0)
                }
                #expect(outputs[0].out == outputs[1].out)
                #expect(outputs[0].err == outputs[1].err)
                #expect(outputs[0].code == outputs[1].code)
                // Times are those of the two runs: set to one.
                let noTimes = "find . -depth -exec touch -h -d @1 '{}' ';'"
                let before = try [plain, mirror.mount].map { try shell(Trees.Question.digests.rawValue, in: $0) }
                #expect(before[0] == before[1])
                for tree in [plain, mirror.mount] { try shell(noTimes, in: tree) }
                for question in [Trees.Question.metadata, .attributes] {
                    let difference = try Trees.difference(plain, mirror.mount, question)
                    #expect(difference == nil)
                }
                try mirror.stop()
                try mirror.start()
                let after = try Trees.difference(plain, mirror.mount, .metadata)
                #expect(after == nil, "after a remount")
            }
        }

        @Test("Making, linking, moving and removing names")
        func names() throws {
            try compare(
                """
                mkdir -p a/b/c && touch a/b/c/file && mv a/b d && ln d/c/file hard && ln -s hard soft && cat soft
                ln size-65537 another; mv size-65537 a/moved; stat -c %h another; rm another
                mv -n size-1 size-0; mv -T d/c a 2>&1; rmdir d 2>&1; mkdir d 2>&1; rm -r d
                mkfifo pipe; mknod null c 1 3; stat -c %t:%T null; (cat pipe & echo through >pipe; wait)
                ln -s loop loop; cat loop 2>&1; cat missing 2>&1; cd missing 2>&1; rm missing 2>&1
                touch "$(printf 'x%.0s' {1..256})" 2>&1; ls deep | sort; ln deep hard-directory 2>&1
                rm -f fifo character; unlink dangling; rm 'new\nline' 2>&1; rm -rf deep/er
                """)
        }

        @Test("Modes, owners, times, attributes and ACLs")
        func attributes() throws {
            try compare(
                """
                chmod 640 size-1; chown 5:6 size-1; chmod u+s,g+s size-65536; chown 7 size-65536; stat -c '%a %u %g' size-65536
                touch -d '2020-02-02 02:02:02.222222222' holes; stat -c %y holes; touch -a -d @5 holes; stat -c '%x %y' holes
                setfattr -n user.new -v 1 size-1; setfattr -x user.plain size-1; setfattr -x user.none size-1 2>&1
                setfattr -n user.big -v "$(head -c 3000 /dev/zero | tr '\\0' x)" size-1 2>&1
                setfacl -m u:5:rwx,m::r size-1; setfacl -b size-65537; mkdir deep/inherits; getfacl deep/inherits
                chmod 000 empty; ls empty; [ -w size-1 ] && echo writable; chattr +i size-1 2>/dev/null; chattr -i size-1 2>/dev/null
                umask 077; touch masked; mkdir masked-dir; umask 000; touch open; mkdir open-dir
                """)
        }

        @Test("Writing, appending, truncating and copying")
        func content() throws {
            try compare(
                """
                echo new >new; echo more >>new; echo more >>size-65535; truncate -s 10 size-65536; truncate -s 99999 size-1
                dd if=size-196625 of=size-1048577 bs=1000 seek=500 conv=notrunc status=none; : >holes
                cp size-196625 copied; cp --reflink=auto copied again; cat size-0 size-1 copied >joined
                exec 5<>open-file; echo here >&5; rm open-file; cat <&5; head -c 5 /proc/self/fd/5; exec 5>&-
                set -o noclobber; echo x >new 2>/dev/null || echo exists; sed -i s/new/old/ new
                sort -o new new; tail -c 3 size-196625 | od -c; wc -c size-* | sort
                """)
        }

        @Test("What has no name any more stays for those who have it", arguments: [true, false])
        func nameless(isPassthrough: Bool) throws {
            try withMirror(mounting: isPassthrough ? [] : ["--no-passthrough"]) { mirror throws in
                try File.put("offline", mirror.remote("offline"))
                try File.put("replaced", mirror.remote("replaced"))
                mkdir(mirror.remote("directory"), 0o755)
            } _: { mirror throws in
                let handles = try ["offline", "replaced", "directory"].map {
                    try File.open(mirror.at($0), PASSHSM_O_PATH)
                }
                unlink(mirror.at("offline"))
                try File.put("new", mirror.at("new"))
                rename(mirror.at("new"), mirror.at("replaced"))
                rmdir(mirror.at("directory"))
                for (handle, text) in zip(handles, ["offline", "replaced"]) {
                    #expect(try handle.stat().st_nlink == 0)
                    #expect(try handle.reopen(O_RDONLY).bytes(0..<99) == Array(text.utf8))
                }
                #expect(try handles[2].stat().st_nlink == 0)
                try shell("mkdir here && cd here && rmdir ../here && stat .", in: mirror.mount)
            }
        }

        @Test("renameat2 exchanges and refuses to replace")
        func exchange() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("a"), size: 100_000, seed: 1)
                try Pattern.write(mirror.remote("b"), size: 3 << 20, seed: 2)
            } _: { mirror throws in
                let (a, b) = (mirror.at("a"), mirror.at("b"))
                #expect(passhsm_renameat2(AT_FDCWD, a, AT_FDCWD, b, 1) == -1 && errno == EEXIST)
                #expect(passhsm_renameat2(AT_FDCWD, a, AT_FDCWD, b, 2) == 0)
                #expect(try File.sameContent(a, mirror.remote("b")) && File.sameContent(b, mirror.remote("a")))
                #expect(passhsm_renameat2(AT_FDCWD, a, AT_FDCWD, mirror.at("c"), 1) == 0)
                try mirror.stop()
                try mirror.start()
                #expect(try File.sameContent(mirror.at("c"), mirror.remote("b")))
            }
        }

        @Test("A cold file that was renamed, linked or removed while it is open gives its content")
        func renamedCold() throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                for name in ["moved", "removed", "over"] {
                    try Pattern.write(mirror.remote(name), size: 3 << 20, seed: 4)
                }
                try shell("mkdir sub; ln moved sub/link", in: mirror.source)
            } _: { mirror throws in
                let open = try ["moved", "removed", "over"].map { try File.open(mirror.at($0)) }
                try shell("mv moved sub/elsewhere; rm removed; echo new >new; mv new over", in: mirror.mount)
                for file in open { #expect(try file.bytes(0..<3 << 20) == Pattern.bytes(0..<3 << 20, seed: 4)) }
                #expect(try File.bytes(mirror.at("over")) == Array("new\n".utf8))
                #expect(try mirror.state("sub/link").state == "dual", "one file, whatever its name")
            }
        }

        @Test("Locks of flock exclude each other across processes")
        func locks() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 10)
            } _: { mirror throws in
                let holder = try Child(["flock", mirror.at("file"), "sleep", "60"])
                try until("the lock to be held") { try run(["flock", "-n", mirror.at("file"), "true"]).code == 1 }
                let waiter = try Child(["flock", mirror.at("file"), "echo", "got it"])
                // A waiter of a lock can be killed, and the holder's end lets the next one in.
                let killed = try Child(["flock", mirror.at("file"), "true"])
                killed.kill(SIGKILL)
                #expect(try killed.wait(seconds: 5).code == 128 + SIGKILL)
                #expect(waiter.poll() == nil)
                try shell("pkill -P \"$1\" sleep", ["\(holder.pid)"])
                _ = try holder.wait(seconds: 5)
                #expect(try waiter.wait(seconds: 5).out == "got it\n")
            }
        }

        @Test("statfs tells of the lower file system, and fsync works on files and directories")
        func sync() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 3 << 20)
                mkdir(mirror.remote("dir"), 0o755)
            } _: { mirror throws in
                let format = "stat -f -c '%S %b %l'"
                #expect(try shell("\(format) .", in: mirror.mount) == shell("\(format) .", in: mirror.source))
                for name in ["file", "dir"] { try File.open(mirror.at(name)).fsync() }
                try File.open(mirror.at("file"), O_RDWR).fdatasync()
                try shell("sync -f file", in: mirror.mount)
            }
        }
    }
}
