import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// `.passhsm` and the records are the daemon's own.
    @Suite struct Hidden {
        private func withFile(_ body: (Mirror) throws -> Void) throws {
            try withMirror { mirror throws in
                try shell("mkdir sub; echo hello >file; echo sub >sub/file", in: mirror.source)
            } _: { mirror throws in
                try body(mirror)
            }
        }

        @Test("The store's directory is not listed, not found, and cannot be made, moved or removed")
        func folder() throws {
            try withFile { mirror throws in
                #expect(try shell("ls -A", in: mirror.mount) == "file\nsub\n")
                #expect(try shell("find . -name .passhsm", in: mirror.mount) == "")
                for command in [
                    "stat .passhsm", "ls .passhsm", "cat .passhsm/*", "rm -r .passhsm", "rmdir .passhsm",
                    "mv .passhsm x",
                    "mkdir .passhsm", "touch .passhsm", "mv file .passhsm", "ln file .passhsm", "ln -s x .passhsm",
                    "mkfifo .passhsm", "mv -T sub .passhsm",
                ] {
                    let output = try run(["bash", "-c", command], in: mirror.mount)
                    #expect(output.code != 0, "\(command)")
                }
                #expect(try shell("cat file sub/file", in: mirror.mount) == "hello\nsub\n")
                // Elsewhere the name is like any other.
                try shell(
                    "mkdir sub/.passhsm && touch sub/.passhsm/x && mv sub/.passhsm sub/y && rm -r sub/y",
                    in: mirror.mount)
            }
        }

        @Test(
            "The record is not listed, read, written or removed through the mount",
            arguments: ["trusted.passhsm", "user.passhsm"])
        func record(name: String) throws {
            try withFile { mirror throws in
                let path = mirror.at("file")
                #expect(try shell("getfattr -d -m - \"$1\"", [path]).contains("passhsm") == false)
                #expect(try run(["getfattr", "-n", name, path]).code != 0)
                for command in [["setfattr", "-n", name, "-v", "x", path], ["setfattr", "-x", name, path]] {
                    #expect(try run(command).code != 0, "\(command)")
                }
                #expect(try shell("cat \"$1\"", [path]) == "hello\n")
                #expect(try mirror.state("file").state == "dual")
            }
        }

        @Test("Other attributes are set, listed, replaced and removed")
        func attributes() throws {
            try withFile { mirror throws in
                try shell(
                    """
                    setfattr -n user.one -v 1 file; setfattr -n trusted.two -v 2 file; setfattr -n user.one -v 3 file
                    [ "$(getfattr --only-values -n user.one file)" = 3 ]
                    setfattr -x trusted.two file
                    ! getfattr -n trusted.two file 2>/dev/null
                    setfacl -m u:99:r file && getfacl -p file | grep -q user:99:r--
                    """, in: mirror.mount)
            }
        }

        @Test("A copy of the record on another file is noticed: its content is not invented")
        func copiedRecord() throws {
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 200_000)
            } _: { mirror throws in
                try shell(
                    """
                    truncate -s 200000 copy
                    setfattr -n trusted.passhsm -v "$(getfattr -e hex -n trusted.passhsm file | sed -n 's/^trusted.passhsm=//p')" copy
                    """, in: mirror.tree)
                try mirror.start()
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
                // Local zeros, or an error; the other file's record says nothing about it.
                let error = File.readError(mirror.at("copy"))
                if error != EIO { #expect(try File.bytes(mirror.at("copy")).allSatisfy { $0 == 0 }) }
                #expect(try mirror.state("copy").state != "dual")
            }
        }
    }
}
