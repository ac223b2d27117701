import CLinux
import Glibc
import HSMSystem
import TestSupport
import Testing

extension Scenario {
    private static let digests = """
        find . -path ./.passhsm -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
        """

    static let reading: [Scenario] = [
        Scenario(name: "every kind of file has its source's digest, and is complete afterwards") { mirror throws in
            try Trees.special(mirror.source)
        } body: { mirror, frontEnd throws in
            #expect(try shell(digests, in: mirror.mount) == shell(digests, in: mirror.source))
            #expect(try Trees.difference(mirror.source + "/deep", mirror.mount + "/deep", .metadata) == nil)
            try mirror.stop()
            let states = "find . -type f ! -path './.passhsm/*' -print0 | xargs -0 \(Machine.program) state"
            for line in try shell(states, in: mirror.tree).split(separator: "\n") {
                #expect(line.hasPrefix("dual") && !line.contains("dirty"), "\(line)")
            }
        },
        Scenario(name: "the holes of a thin image stay holes, and its content is the source's") { mirror throws in
            try File.sparse(mirror.remote("thin"), size: 64 << 20)
            let image = try File.open(mirror.remote("thin"), O_WRONLY)
            for place in [0, 5 << 20, 40_000_000] { try image.put(Pattern.bytes(0..<100_000), at: place) }
        } body: { mirror, frontEnd throws in
            for command in ["cmp", "recall"] {
                if command == "recall" {
                    #expect(try passhsm("release", mirror.at("thin")).code == 0)
                    #expect(try passhsm("recall", mirror.at("thin")).code == 0)
                }
                #expect(try File.sameContent(mirror.at("thin"), mirror.remote("thin")))
                try mirror.await("thin", "complete") { $0.state == "dual" }
                // The kernel keeps what it knows of a file.
                try mirror.restart(frontEnd, [])
                #expect(try File.stat(mirror.at("thin")).st_blocks <= 3 * 4 * 65_536 / 512)
            }
        },
        Scenario(name: "ranges are the source's, whatever their boundaries") { mirror, _ throws in
            let file = try File.open(mirror.at("a"))
            let all = Scenario.content(0)
            for start in [0, 1, 65_535, 65_536, 1 << 20, Scenario.size - 7, Scenario.size, Scenario.size + 5] {
                for count in [1, 4096, 70_000] {
                    let expected = all[min(start, all.count)..<min(start + count, all.count)]
                    #expect(try file.bytes(start..<start + count) == Array(expected), "\(start) \(count)")
                }
            }
        },
        Scenario(name: "a mapping of a cold file shows the source's bytes", mounting: ["--fill", "read"]) {
            mirror, _ throws in
            let file = try File.open(mirror.at("b"))
            let address = mmap(nil, Scenario.size, PROT_READ, MAP_PRIVATE, file.raw, 0)
            let memory = try #require(address == MAP_FAILED ? nil : address)
            let isRight = UnsafeRawBufferPointer(start: memory, count: Scenario.size)
                .elementsEqual(Scenario.content(1)[..<Scenario.size])
            #expect(isRight)
            munmap(memory, Scenario.size)
        },
        Scenario(name: "many readers of one cold file fetch each granule once") { mirror, _ throws in
            try mirror.hold()
            let readers = try (0..<16).map { _ in try Child(["cmp", mirror.remote("c"), mirror.at("c")]) }
            try until("readers") { try mirror.status().waiting >= 1 }
            mirror.letGo()
            for reader in readers { #expect(try reader.wait(seconds: 60).code == 0) }
            #expect(try mirror.status().counter("granulesFetched") == (Scenario.size + 2) / Trees.granule + 1)
        },
        Scenario(name: "a cold file that is renamed, linked, and removed while it is open keeps its content") {
            mirror, _ throws in
            try shell("mv a a2; ln b b2; mkdir -p d; mv c d/c", in: mirror.mount)
            #expect(try mirror.content("a2") == Scenario.content(0))
            #expect(try mirror.content("b2") == Scenario.content(1))
            let file = try File.open(mirror.at("d/c"))
            try shell("rm d/c", in: mirror.mount)
            #expect(try file.bytes(0..<Scenario.size + 2) == Scenario.content(2))
        },
        Scenario(name: "what is present stays present over a restart, and is not fetched again") {
            mirror, frontEnd throws in
            #expect(try mirror.content("a") == Scenario.content(0))
            try mirror.restart(frontEnd)
            #expect(try mirror.content("a") == Scenario.content(0))
            #expect(try mirror.status().counter("fetches") == 0)
            try mirror.fail(true)
            #expect(try mirror.content("a") == Scenario.content(0))
        },
        Scenario(name: "copies by sparse-aware tools are whole") { mirror, _ throws in
            let copy = mirror.scratch.path + "/copy"
            try shell(
                """
                cp --sparse=always "$1/a" "$2-a"; tar -S -cf - -C "$1" b | tar -xOf - >"$2-b"
                rsync -S "$1/c" "$2-c"
                """, [mirror.mount, copy])
            for (index, name) in ["a", "b", "c"].enumerated() {
                let isWhole = try File.bytes("\(copy)-\(name)") == Scenario.content(index)
                #expect(isWhole, "\(name)")
            }
        },
        Scenario(name: "reading leaves a file clean, and what is no regular file answers as ever") { mirror throws in
            try Pattern.write(mirror.remote("file"), size: 5000)
            try shell("mkfifo fifo; ln -s file link; mkdir dir", in: mirror.source)
        } body: { mirror, _ throws in
            #expect(try mirror.content("link") == Pattern.bytes(0..<5000))
            let text = try shell("timeout 5 cat fifo & sleep 0.2; echo through >fifo; wait; ls dir", in: mirror.mount)
            #expect(text == "through\n")
            try mirror.await("file", "complete") { $0.state == "dual" && $0.flags.isEmpty }
        },
    ]
}
