import Glibc
import TestSupport
import Testing

extension MountTests {
    /// Users mount for themselves: through fusermount3, or as root of a user namespace.
    @Suite struct Unprivileged {
        /// Runs as nobody in a mount and a PID namespace, so that all of it ends with the test. Some machines give /dev/fuse
        /// to root alone, others to everybody: here it is everybody's.
        private func asNobody(_ prefix: String, _ script: String) throws -> String {
            var result = ""
            try withScratch { scratch in
                // The build may be where nobody cannot go.
                try shell(
                    """
                    cp "$1" "$2/passhsm"; mkdir "$2/home"; chown nobody: "$2/home"; mknod -m 666 "$2/fuse" c 10 229
                    """, [Machine.program, scratch.path])
                let prelude = """
                    set -euo pipefail; export HOME=$PWD XDG_RUNTIME_DIR=$PWD/run; mkdir -m 700 run; mkdir source lower
                    passhsm() { "$HOME/../passhsm" "$@"; }
                    start() { passhsm mount lower lower --log "$HOME/log" "$@" | grep -o 'no passthrough' || cat log; }

                    """
                result = try shell(
                    """
                    unshare -mpf --mount-proc --kill-child bash -euc '
                        mount --bind "$1/fuse" /dev/fuse; cd "$1/home"
                        setpriv --reuid=65534 --regid=65534 --clear-groups \(prefix) bash -c "$2"
                    ' bash "$1" "$2"
                    """, [scratch.path, prelude + script])
            }
            return result
        }

        private static let work = """
            seq 1 400000 >source/large; echo small >source/small; mkdir source/dir; seq 1 2000 >source/dir/file
            chmod 640 source/dir/file; ln -s small source/link; cp -a source expected
            passhsm import source lower >/dev/null
            start
            cmp source/large lower/large; cmp source/dir/file lower/dir/file; readlink lower/link; stat -c %a lower/dir/file
            for tree in lower expected; do (
                cd $tree; echo more >>small; printf x | dd of=large bs=1 seek=1000000 conv=notrunc status=none
                mkdir new; mv dir/file new/moved; ln new/moved hard; chmod 600 hard; truncate -s 5 hard; echo made >new/made
            ); done
            diff -r expected lower && echo same
            getfattr -m- -d lower/large lower/small
            passhsm status lower | grep -c '^passthrough *off'
            passhsm unmount lower
            getfattr -m '^user.passhsm$' lower/.passhsm/tree/large | grep -c '^user'
            passhsm state lower/large | grep -o dirty
            start --fill read
            diff -r expected lower && echo same

            """
        private static let answer = """
            no passthrough
            small
            640
            same
            1
            1
            dirty
            no passthrough
            same

            """

        /// What `passhsm unmount` says aside.
        private func lines(_ output: String) -> String {
            output.split(separator: "\n", omittingEmptySubsequences: false).filter { !$0.contains("unmounted") }
                .joined(separator: "\n")
        }

        @Test("An ordinary user imports, mounts by fusermount3, reads, writes and unmounts")
        func user() throws {
            let end = "fusermount3 -u lower; ls -A lower | grep -x .passhsm\n"
            #expect(try lines(asNobody("", Self.work + end)) == Self.answer.dropLast() + "\n.passhsm\n")
        }

        @Test("Root of a user namespace does as well, without a helper")
        func namespace() throws {
            let end = "umount lower; ls -A lower | grep -x .passhsm\n"
            #expect(try lines(asNobody("unshare -Urm", Self.work + end)) == Self.answer.dropLast() + "\n.passhsm\n")
        }

        @Test("A tree that root imported is refused to those who cannot read its records")
        func privileged() throws {
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 10)
            } _: { mirror throws in
                try shell("chown -R nobody: \"$1\"", [mirror.lower])
                let output = try run([
                    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env",
                    "XDG_RUNTIME_DIR=/nonexistent",
                    Machine.program, "mount", mirror.lower, mirror.lower, "--log", "/dev/null",
                ])
                #expect(output.code != 0 && output.err.contains("imported with privilege"), "\(output)")
            }
        }

        @Test("What a user puts in the place of `.passhsm` in a directory of his is not believed by root")
        func forged() throws {
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 10)
            } _: { mirror throws in
                let secret = mirror.scratch.path + "/secret"
                mkdir(secret, 0o700)
                try File.put("secret", secret + "/file")
                try shell(
                    """
                    chown nobody: "$1"; cd "$1"; setpriv --reuid=65534 --regid=65534 --clear-groups bash -euc '
                        mv .passhsm away; mkdir -m 700 .passhsm .passhsm/{partial,keys,tmp}; echo his >file
                        printf "format=1\nattribute=user.passhsm\nsource=%s\nimported=yes\n" "$1" >.passhsm/config
                    ' bash "$2"
                    """, [mirror.lower, "file://" + secret])
                for arguments in [
                    ["mount", mirror.lower, mirror.mount], ["import", mirror.source, mirror.lower],
                    ["verify", mirror.lower], ["release", mirror.lower + "/file"], ["state", mirror.lower + "/file"],
                ] {
                    let output = try run([Machine.program] + arguments)
                    #expect(output.code != 0 && output.err.contains("is not of user 0 alone"), "\(output)")
                }
                #expect(!mirror.isMounted)
                try shell("cd \"$1\"; rm -r .passhsm file; mv away .passhsm", [mirror.lower])
                try mirror.start()
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
                try mirror.stop()
            }
        }
    }
}
