import Glibc
import HSMSystem
import TestSupport
import Testing

extension Scenario {
    private static func done(_ command: String, _ path: String) throws {
        let output = try passhsm(command, path)
        #expect(output.code == 0, "\(output)")
    }

    static let managing: [Scenario] = [
        Scenario(name: "a released file has no blocks, and reads the same") { mirror, _ throws in
            for _ in 0..<3 {
                #expect(try mirror.content("a") == Scenario.content(0))
                try mirror.await("a", "complete") { $0.state == "dual" }
                try done("release", mirror.at("a"))
                let state = try mirror.state("a")
                #expect(state.state == "offline" && state.presentBytes == 0)
                let before = try mirror.status().counter("bytesFetched")
                #expect(try mirror.content("a") == Scenario.content(0))
                #expect(try mirror.status().counter("bytesFetched") == before + Scenario.size)
            }
        },
        Scenario(name: "an open, mapped, dirty, pinned or local file is not released") { mirror, _ throws in
            func refusal(_ name: String) throws -> String {
                let output = try passhsm("release", mirror.at(name))
                #expect(output.code == 1, "\(output)")
                return output.err
            }
            var reader: Descriptor? = try File.open(mirror.at("a"))
            _ = try reader?.bytes(0..<Scenario.size)
            try mirror.await("a", "complete") { $0.state == "dual" }
            #expect(try refusal("a").contains("open"))
            let raw = try #require(reader?.raw)
            let address = mmap(nil, Scenario.size, PROT_READ, MAP_SHARED, raw, 0)
            let memory = try #require(address == MAP_FAILED ? nil : address)
            reader = nil
            #expect(try refusal("a").contains("open"))
            munmap(memory, Scenario.size)
            try done("release", mirror.at("a"))
            try done("pin", mirror.at("b"))
            #expect(try refusal("b").contains("pinned"))
            try done("unpin", mirror.at("b"))
            try done("release", mirror.at("b"))
            try File.open(mirror.at("c"), O_WRONLY).put([1], at: 9)
            #expect(try refusal("c").contains("local changes"))
            try File.put("new", mirror.at("new"))
            #expect(try refusal("new").contains("local"))
        },
        Scenario(name: "a file that is pinned while it is open for writing is clean when it was not written") {
            mirror, _ throws in
            for isWritten in [false, true] {
                let name = isWritten ? "b" : "a"
                _ = try mirror.content(name)
                try mirror.await(name, "complete") { $0.state == "dual" }
                var writer: Descriptor? = try File.open(mirror.at(name), O_RDWR)
                try done("pin", mirror.at(name))
                try mirror.await(name, "marked") { $0.flags.sorted() == ["dirty", "pinned"] }
                if isWritten { try writer?.put([1], at: 9) }
                writer = nil
                if isWritten { sleep(2) } else { try mirror.await(name, "clean") { $0.flags == ["pinned"] } }
                #expect(try mirror.state(name).flags.contains("dirty") == isWritten)
            }
        },
        Scenario(name: "a file is released where XFS has no block free", disk: .xfs) { mirror, _ throws in
            #expect(try mirror.content("a") == Scenario.content(0))
            try mirror.await("a", "complete") { $0.state == "dual" }
            // Tearing shared blocks apart takes the last ones.
            let script = """
                head -c 8M /dev/zero >shared; cp --reflink=always shared twin; sync -f .
                fallocate -l $(($(stat -f -c '%a * %S' .) - 409600)) filler
                for i in 1 2 3; do dd if=/dev/zero of=f$i bs=4k 2>/dev/null || true; sync -f .; done
                i=0; while fallocate -p -o $((i * 8192)) -l 4k twin 2>/dev/null; do i=$((i + 1)); done
                ! fallocate -p -o 0 -l 1M filler 2>/dev/null
                """
            try shell(script, in: mirror.lower)
            let reserve = "xfs_io -x -c resblks . | sed -n 1p"
            let before = try shell(reserve, in: mirror.lower)
            let output = try passhsm("release", mirror.at("a"))
            #expect(output.code == 0, "\(output)")
            #expect(try mirror.state("a").state == "offline")
            #expect(try File.stat(mirror.tree + "/a").st_blocks == 0)
            #expect(try shell(reserve, in: mirror.lower) == before, "what was lent is back")
            // XFS frees what was removed a little later.
            try shell("rm twin filler; sync -f .", in: mirror.lower)
            try until("some space") { File.readError(mirror.at("a")) == 0 }
            #expect(try mirror.content("a") == Scenario.content(0))
        },
        Scenario(name: "recall fills files whole, and tells of those that fail") { mirror, _ throws in
            let output = try passhsm("recall", mirror.at("a"), mirror.at("b"))
            #expect(output.code == 0, "\(output)")
            try mirror.fail(true)
            #expect(try mirror.content("a") == Scenario.content(0))
            let failed = try passhsm("recall", mirror.at("c"))
            #expect(failed.code == 1 && failed.err.contains("simulated remote fails"))
        },
        Scenario(name: "readers never see anything else while their files are released again and again") {
            mirror, _ throws in
            let readers = try comparingReaders(mirror, mapped: "a", other: "c", rounds: 15)
            var released = 0
            while readers.contains(where: { $0.poll() == nil }) {
                let output = try passhsm("release", mirror.at("a"), mirror.at("c"))
                if output.out.hasPrefix("0 ") == false { released += 1 }
            }
            for reader in readers {
                let output = try reader.wait(seconds: 1)
                #expect(output.code == 0, "\(output)")
            }
            #expect(released > 0, "no release came through: nothing was tested")
        },
    ]
}
