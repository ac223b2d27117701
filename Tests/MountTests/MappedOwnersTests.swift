import Glibc
import HSMSystem
import Testing

extension MountTests {
    /// Clones of the mount with mapped owners (mount_setattr(2), MOUNT_ATTR_IDMAP), and the same of the lower directory.
    @Suite struct MappedOwners {
        /// Clones the mount of `$ARGV[0]` to `$ARGV[1]`: what belongs to 0 to 999 belongs to 10,000 and so on there, and what
        /// belongs to 1000 to root. By open_tree(2), mount_setattr(2) and move_mount(2), with the user namespace of a child.
        private static let clone = """
            my $child = open(my $out, "-|", "unshare", "-U", "sh", "-c", "echo; exec sleep 60") or die; <$out>;
            my $fail = sub { kill 9, $child; die "$_[0]: $!\\n" };
            for my $map ("uid_map", "gid_map") {
                open(my $file, ">", "/proc/$child/$map") or $fail->($map);
                syswrite($file, "0 10000 1000\\n1000 0 1\\n1001 11001 1000\\n") or die "$!";
            }
            open(my $namespace, "<", "/proc/$child/ns/user") or $fail->("ns");
            my ($from, $to, $empty) = (@ARGV, "");
            my $tree = syscall(428, -100, $from, 0x80001); $fail->("open_tree") if $tree < 0;
            my $attributes = pack("QQQQ", 0x100000, 0, 0, fileno $namespace);
            syscall(442, $tree, $empty, 0x1000, $attributes, 32) == 0 or die "mount_setattr: $!\\n";
            syscall(429, $tree, $empty, -100, $to, 4) == 0 or $fail->("move_mount");
            kill 9, $child;
            """

        private static let prelude = """
            umask 022; exec 2>&1
            as() { setpriv --reuid=$1 --regid=$1 --groups=$2 bash -c "$3" 2>&1; }
            show() { stat -c '%n %A %h %u %g %s' "$@" 2>&1 | sed -E 's/^([^ ]+ d.* )[0-9]+$/\\1-/'; }
            unnamed='my ($d, $n) = (".", "named"); my $f = syscall(2, $d, 020200002, 0640);
                print $f < 0 ? "$!\\n" : syscall(265, -100, my $p = "/proc/self/fd/$f", -100, $n, 0x400) . "\\n"'

            """

        private static let scripts = [
            """
            mkdir -m 777 d; cd d
            for user in 0 10000 10005 11050 20000; do
                mkdir $user -m 777; show $user
                as $user 10007 "cd $user; echo x >file; mkdir dir; mkfifo fifo; ln -s x link; ln file hard; umask 0; touch open
                    perl -e '$unnamed'; rm -f hard; mv dir moved"
                show $user/*; rm -rf $user/file; show $user
            done
            for user in 10005 20000; do as $user 1 'cat 10000/file 0/file; echo x >>0/file; rm 10000/file; touch 0/new'; done
            mkdir -m 1777 sticky; as 10001 1 'touch sticky/one'; as 10002 1 'touch sticky/two; rm -f sticky/one; rm -f sticky/two'
            show sticky/*
            """,
            """
            mkdir -m 777 d; cd d; as 10005 10006 'echo x >f; mkdir g'
            for owner in 10007 10007:10008 0:0 20000 :20000 :10005 5 1000; do chown $owner f; echo $?; show f; done
            chown 10005:10005 f
            for owner in :10006 :10009 10009 10005 :20000; do as 10005 10006 "chown $owner f"; show f; done
            for user in 0 10005 10006; do for mode in 6755 2644 600; do as $user 1 "chmod $mode f; touch f; touch -d @5 f"; show f; done; done
            chown 10005:10006 g; chmod 2777 g; for user in 0 10005 10007; do as $user 1 "mkdir g/$user; touch g/f$user"; done; show g/*
            for who in 10005 10007; do for mode in 4777 2777 6755; do for how in 'echo x >>f' ': >f' 'truncate -s 9 f' 'fallocate -l 9 f'; do
                chown 10005:10005 f; chmod $mode f; as $who 1 "$how"; show f
            done; done; done
            """,
            """
            mkdir -m 777 d; cd d; as 10005 1 'echo x >f; mkdir g'
            setfacl -m u:10007:rw,g:10008:r f; setfacl -d -m u:10007:rwx g; getfacl -n f g; as 10007 1 'echo y >>f; cat f'
            as 10007 1 'touch g/x; setfacl -m u:1:r f'; as 10005 1 'touch g/y; setfacl -m u:10009:r f'; getfacl -n f g/*; setfacl -m u:20000:r f
            for user in 0 10005 10006; do
                as $user 1 "setfattr -n user.a -v $user f; setfattr -n trusted.a -v $user f; getfattr -d -m- f; chattr +i f; chattr +d f"
                lsattr f | cut -c1-8; chattr -i f
            done
            setcap cap_chown+ep f; getcap -n f; as 10005 1 'echo x >>f'; getcap -n f; as 10005 1 'setfattr -n security.b -v 1 f; cat f'
            perl -e 'my ($a, $b) = ("f", "renamed"); print syscall(316, -100, $a, -100, $b, 4), "\\n"'; show f renamed; stat -c %t:%T f
            """,
        ]

        /// The owners as they are on disk.
        private static let below = "find d -printf '%p %U %G %m\\n' | sort"

        /// Runs `body` with the paths of the two clones: of a directory beside the mirror, and of the mount.
        private func withClones(
            _ arguments: [String], _ body: (_ mirror: Mirror, _ bare: String, _ clones: [String]) throws -> Void
        ) throws {
            try withMirror(apart: true, mounting: arguments) { mirror throws in
                try File.put("content", mirror.remote("known"))
            } _: { mirror throws in
                chmod(mirror.scratch.path, 0o755)
                let bare = mirror.scratch.path + "/bare"
                mkdir(bare, 0o755)
                try File.put("content", bare + "/known")
                let clones = ["/clone0", "/clone1"].map { mirror.scratch.path + $0 }
                for clone in clones { mkdir(clone, 0o755) }
                defer { for clone in clones { umount2(clone, Int32(MNT_DETACH)) } }
                // A directory that is not a mount point becomes one: its mount is cloned from there on.
                for (from, to) in zip([bare, mirror.mount], clones) {
                    let output = try run(["perl", "-e", Self.clone, from, to])
                    #expect(output.code == 0, "\(output)")
                }
                for directory in [bare, mirror.mount] { chmod(directory, 0o777) }
                try body(mirror, bare, clones)
            }
        }

        @Test(
            "A clone of the mount with mapped owners answers as one of the lower directory does, and makes files of the same owners",
            arguments: scripts.indices, [[], ["--no-passthrough"]])
        func sameAsLower(script: Int, arguments: [String]) throws {
            try withClones(arguments) { mirror, bare, clones throws in
                let outputs = try clones.map { clone in
                    try run(["bash", "-c", Self.prelude + Self.scripts[script]], in: clone, seconds: 120).out
                        .split(separator: "\n")
                }
                #expect(outputs[1] == outputs[0])
                #expect(outputs[0].count > 20)
                let owners = try [bare, mirror.tree, mirror.mount].map { try shell(Self.below, in: $0) }
                #expect(owners[1] == owners[0] && owners[2] == owners[0])
            }
        }

        @Test("Setgid without group execution goes at a change through the mapping, also by a member of the group")
        func mandatoryLocking() throws {
            try withClones([]) { _, _, clones throws in
                let script = """
                    chown 10005:10005 known; chmod 6766 known
                    setpriv --reuid=10005 --regid=10005 --clear-groups bash -c 'echo x >>known'; stat -c %a known
                    """
                #expect(try clones.map { try shell(script, in: $0) } == ["2766\n", "766\n"])
            }
        }

        @Test("A cold file is filled for who may read it through the mapping, and for nobody else")
        func cold() throws {
            try withClones([]) { _, _, clones throws in
                let script = """
                    stat -c '%u %g' known; setpriv --reuid=10001 --clear-groups cat known
                    setpriv --reuid=10000 --clear-groups cat known
                    """
                let outputs = try clones.map { clone in
                    try run(["bash", "-c", "exec 2>&1\nchmod 600 known\n" + script], in: clone).out
                }
                #expect(outputs[1] == outputs[0] && outputs[1].hasSuffix("content"))
            }
        }
    }
}
