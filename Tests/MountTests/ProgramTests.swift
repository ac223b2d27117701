import Foundation
import Glibc
import Testing

extension MountTests {
    /// Real programs, each with the check of its own kind: their idea of right, not ours.
    @Suite struct Programs {
        @Test(
            "fio finds every block that it wrote: buffered, direct and through mappings, cold and new",
            arguments: [[], ["--no-passthrough"]])
        func fio(arguments: [String]) throws {
            let verify = "--directory=. --verify=crc32c --verify_fatal=1 --group_reporting --minimal --size=8m"
            try withMirror(mounting: arguments) { mirror throws in
                try shell("fio --name=cold --rw=write --bs=64k --do_verify=0 \(verify)", in: mirror.source)
            } _: { mirror throws in
                try shell(
                    """
                    fio --name=cold --rw=randread --bs=64k \(verify)
                    fio --name=buffered --rw=randrw --bsrange=1k-64k --numjobs=4 --ioengine=psync \(verify)
                    fio --name=direct --rw=randrw --bs=4k --numjobs=4 --ioengine=libaio --iodepth=8 --direct=1 \(verify)
                    fio --name=mapped --rw=randrw --bs=4k --numjobs=2 --ioengine=mmap \(verify)
                    fio --name=synced --rw=randrw --bs=16k --fsync=16 --numjobs=2 --ioengine=psync \(verify)
                    """, in: mirror.mount)
                // What a corrupt block looks like to fio, so that the above says something.
                let file = mirror.at("cold.0.0")
                try File.open(file, O_WRONLY).put([0], at: 70_001)
                let again = try run(
                    ["bash", "-c", "fio --name=cold --rw=randread --bs=64k \(verify)"], in: mirror.mount)
                #expect(again.code != 0)
            }
        }

        @Test(
            "git: a cold repository is whole; clone, commit, gc and fsck work", arguments: [[], ["--no-passthrough"]])
        func git(arguments: [String]) throws {
            let environment = """
                export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a
                export GIT_COMMITTER_EMAIL=a@b
                commits() { for i in $(seq "$1" "$2"); do
                    mkdir -p "d$((i % 7))"; seq "$i" "$((i * 50))" >"d$((i % 7))/f$i"; echo "$i" >>log
                    git add -A; git commit -qm "commit $i"
                done; }

                """
            try withMirror(mounting: arguments) { mirror throws in
                try shell(environment + "git init -q -b main repo; cd repo; commits 1 20; git gc -q", in: mirror.source)
            } _: { mirror throws in
                try shell(
                    environment + """
                        cd repo; git fsck --full --strict; test -z "$(git status --porcelain)"; cd ..
                        git clone -q "file://$1/repo" clone; cd clone; commits 21 40
                        git checkout -qb side HEAD~10; commits 100 106; git merge -qm merged main -X ours
                        git repack -adq; git gc -q --prune=now --aggressive; git fsck --full --strict
                        test "$(git rev-list --count HEAD)" = 48; test -z "$(git status --porcelain)"
                        git push -q ../repo side; cd ../repo; git fsck --full --strict; git checkout -q side
                        test "$(git rev-parse HEAD^{tree})" = "$(git -C ../clone rev-parse HEAD^{tree})"
                        """, in: mirror.mount, [mirror.source])
            }
        }

        /// The source of Lua, which scripts/fetch-test-sources puts beside the build.
        static func sourceOfLua() throws -> String {
            let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
                .appendingPathComponent("../../.build/test-sources").standardized.path
            let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
            guard let name = names.first(where: { $0.hasPrefix("lua5.4_") && $0.hasSuffix(".orig.tar.gz") }) else {
                throw Failure("\(folder) has no source of lua5.4: scripts/fetch-test-sources gets it")
            }
            return folder + "/" + name
        }

        @Test("make builds a cold project of C as on the bare lower directory, and what it built runs")
        func build() throws {
            let archive = try Self.sourceOfLua()
            try withMirror { mirror throws in
                try shell("tar --strip-components=1 -xzf \"$1\"", in: mirror.source, [archive])
            } _: { mirror throws in
                let bare = mirror.scratch.path + "/bare"
                try shell("cp -a \"$1\" \"$2\"", [mirror.source, bare])
                #expect(try mirror.state("src/lvm.c").state == "offline")
                for tree in [bare, mirror.mount] {
                    try shell("make -s -j4 -C src posix MYCFLAGS=-O0", in: tree, seconds: 240)
                }
                try shell("diff -r \"$1\" .", in: mirror.mount, [bare])
                let sum = try shell(
                    "src/luac -o sum.out - <<<'local s = 0 for i = 1, 1000 do s = s + i end print(s)'; src/lua sum.out",
                    in: mirror.mount)
                #expect(sum == "500500\n")
                #expect(try shell("make -C src posix MYCFLAGS=-O0", in: mirror.mount).contains("Nothing to be done"))
            }
        }

        @Test("rsync -aHAX copies from a cold mount and to it, and finds nothing left to do")
        func rsync() throws {
            try withMirror { mirror throws in
                try Trees.special(mirror.source)
                // rsync leaves the nanoseconds of a node that it made within the same second.
                try shell("find . -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +", in: mirror.source)
            } _: { mirror throws in
                let plain = mirror.scratch.path + "/plain"
                let copy = "rsync -aHAX --numeric-ids"
                try shell("\(copy) \"$1/\" \"$2/\"", [mirror.mount, plain])
                // Through the mount, and back onto it.
                try shell("\(copy) \"$1/\" \"$2/copy/\"", [plain, mirror.mount])
                for tree in [plain, mirror.at("copy")] {
                    for question in [Trees.Question.digests, .metadata, .attributes] {
                        let difference = try Trees.difference(mirror.source, tree, question)
                        #expect(difference == nil, "\(tree): \(question)")
                    }
                }
                #expect(try shell("\(copy) -nic --delete \"$1/\" \"$2/copy/\"", [plain, mirror.mount]) == "")
                // A change goes both ways; --inplace writes into the file that is there.
                try shell(
                    """
                    printf x | dd of="$1/size-196625" bs=1 seek=100000 conv=notrunc status=none
                    \(copy) --inplace --no-whole-file "$1/" "$2/copy/"; cmp "$1/size-196625" "$2/copy/size-196625"
                    """, [plain, mirror.mount])
            }
        }

        @Test(
            "A program and its shared library run from a cold mount", arguments: ["open", "read"],
            [[], ["--no-passthrough"]])
        func execution(fill: String, arguments: [String]) throws {
            try withMirror(mounting: ["--fill", fill] + arguments) { mirror throws in
                // A table of 4 MiB, so that the library is not fetched in one piece.
                try shell(
                    """
                    cat >table.c <<'C'
                    const unsigned table[1 << 20] = { [0] = 1, [700001] = 42, [(1 << 20) - 1] = 99 };
                    unsigned look(unsigned i) { return table[i]; }
                    C
                    cat >main.c <<'C'
                    #include <stdio.h>
                    unsigned look(unsigned);
                    int main(void) { return printf("%u %u %u\\n", look(0), look(700001), look((1 << 20) - 1)) < 0; }
                    C
                    gcc -shared -fPIC -o libtable.so table.c
                    gcc -o program main.c -L. -ltable -Wl,-rpath,'$ORIGIN'
                    """, in: mirror.source)
            } _: { mirror throws in
                #expect(try mirror.state("libtable.so").state == "offline")
                #expect(try shell("./program", in: mirror.mount) == "1 42 99\n")
                if fill == "read" { #expect(try mirror.state("libtable.so").state == "partial") }
                try shell("cat libtable.so >/dev/null", in: mirror.mount)
                #expect(try shell("./program", in: mirror.mount) == "1 42 99\n", "complete")
            }
        }
    }
}
