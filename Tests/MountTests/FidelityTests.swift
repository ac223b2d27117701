import Foundation
import Testing

extension MountTests {
    /// 1: through the mount everything is as in the source, whoever asks.
    @Suite struct Fidelity {
        @Test("The digests of 20,000 real files, read cold through the mount, are the source's")
        func realTree() throws {
            try withMirror(limit: 600) { mirror throws in
                #expect(try Trees.real(mirror.source, atLeast: 20_000) >= 20_000)
            } _: { mirror throws in
                for question in [Trees.Question.digests, .listing, .metadata] {
                    let difference = try Trees.difference(mirror.source, mirror.mount, question)
                    #expect(difference == nil, "\(question)")
                }
                #expect(try mirror.status().counter("errors") == 0)
            }
        }

        @Test("A cold mount of every kind of file answers as its source", arguments: Trees.Question.allCases)
        func specialTree(question: Trees.Question) throws {
            try withMirror { mirror throws in
                try Trees.special(mirror.source)
            } _: { mirror throws in
                let difference = try Trees.difference(mirror.source, mirror.mount, question)
                #expect(difference == nil)
            }
        }

        @Test("What is on the disk after all is read and unmounted is the source", arguments: [true, false])
        func lowerAfterwards(apart: Bool) throws {
            try withMirror(apart: apart) { mirror throws in
                try Trees.special(mirror.source)
            } _: { mirror throws in
                #expect(try Trees.difference(mirror.source, mirror.mount, .digests) == nil)
                #expect(try Trees.difference(mirror.source, mirror.mount, .metadata) == nil, "a fill changes no time")
                try mirror.stop()
                let digests = "find . -path ./.passhsm -prune -o -type f -print0 | sort -z | xargs -0 sha256sum"
                #expect(try shell(digests, in: mirror.tree) == shell(digests, in: mirror.source))
                let states = "find . -type f ! -path './.passhsm/*' -print0 | xargs -0 \(Machine.program) state"
                for line in try shell(states, in: mirror.tree).split(separator: "\n") {
                    #expect(line.hasPrefix("dual"), "\(line)")
                }
            }
        }

        @Test("git finds its work tree unchanged, and its history whole")
        func git() throws {
            try withMirror { mirror throws in
                try Trees.special(mirror.source)
                try shell(
                    """
                    rm -rf character block fifo
                    cp -r /usr/include/linux/*.h .
                    git init -q . && git add -A
                    git -c user.name=n -c user.email=e@example.org commit -q -m first
                    git gc -q
                    """, in: mirror.source)
            } _: { mirror throws in
                #expect(try shell("git status --porcelain", in: mirror.mount) == "")
                #expect(try shell("git diff --stat", in: mirror.mount) == "")
                try shell("git fsck --strict >/dev/null && git log --oneline | grep -q first", in: mirror.mount)
                try shell(
                    "echo more >>size-1 && git commit -q -a -m second --author='n <e@example.org>'", in: mirror.mount)
            }
        }

        @Test("Names of every legal byte are shown as they are")
        func names() throws {
            try withMirror { mirror throws in
                try Trees.everyByte(mirror.source)
            } _: { mirror throws in
                #expect(try Trees.difference(mirror.source, mirror.mount, .digests) == nil)
                #expect(try shell("find . -type f -printf x", in: mirror.mount).count == 254)
            }
        }

        @Test("Paths far beyond PATH_MAX are reached step by step")
        func deepPath() throws {
            let walk = "for step in {1..40}; do cd \"$(printf 'd%.0s' {1..200})\"; done"
            try withMirror { mirror throws in
                try shell(
                    "for step in {1..40}; do mkdir \"$(printf 'd%.0s' {1..200})\"; cd \"$(printf 'd%.0s' {1..200})\"; done; echo deep >file",
                    in: mirror.source)
            } _: { mirror throws in
                #expect(try shell(walk + "; cat file", in: mirror.mount) == "deep\n")
                try shell(walk + "; echo deeper >other; mv other moved", in: mirror.mount)
                #expect(try shell(walk + "; cat moved", in: mirror.mount) == "deeper\n")
            }
        }
    }
}
