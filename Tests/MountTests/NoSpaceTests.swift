import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// A lower file system without space: fills fail with ENOSPC, nothing is half recorded, and all is well again when there
    /// is space.
    @Suite struct NoSpace {
        /// A lower directory that is a file system of its own, of 200 MiB unless `make` makes another.
        private func withSmallDisk(
            make: String = "truncate -s 200M image; mkfs.ext4 -q -m 0 image; mount -o loop image lower",
            prepare: (Mirror) throws -> Void, _ body: (Mirror) throws -> Void
        ) throws {
            try withScratch { scratch in
                let mirror = try Mirror(scratch, apart: true)
                do {
                    try prepare(mirror)
                    try shell(make, in: scratch.path)
                    try mirror.importSource()
                    try body(mirror)
                    if mirror.pid != 0 { try mirror.stop() }
                } catch {
                    _ = mirror.cleanUp()
                    umount2(mirror.lower, 0)
                    throw error
                }
                try #require(umount2(mirror.lower, 0) == 0)
            }
        }

        /// Leaves `left` bytes, or hardly any.
        private func fillUp(_ mirror: Mirror, leaving left: Int = 0) throws {
            let script = """
                free=$(($(stat -f -c '%a * %S' .)))
                fallocate -l $((free - $1)) filler || true
                [ $1 -gt 0 ] || { dd if=/dev/zero bs=4k 2>/dev/null >>filler2 || true; }
                sync -f .
                """
            try shell(script, in: mirror.lower, ["\(left)"])
        }

        private func makeRoom(_ mirror: Mirror) throws {
            try shell("rm -f filler filler2; sync -f .", in: mirror.lower)
        }

        private func expectRight(_ mirror: Mirror) throws {
            let output = try passhsm("verify", mirror.lower)
            #expect(output.code == 0, "\(output)")
        }

        @Test("A fill without space fails with ENOSPC, and works when there is some", arguments: ["open", "read"])
        func large(fill: String) throws {
            try withSmallDisk { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 3 << 20)
            } _: { mirror throws in
                try mirror.start(["--fill", fill])
                try fillUp(mirror)
                for _ in 0..<3 { #expect(File.readError(mirror.at("file")) == ENOSPC) }
                // There may be no room for the text of the error.
                let state = try mirror.state("file")
                #expect(state.flags.contains("error") && (state.lastError ?? "ENOSPC").hasPrefix("ENOSPC"))
                // What was got before the space went is right.
                for range in try mirror.state("file").ranges {
                    #expect(
                        try File.bytes(mirror.at("file"), range[0]..<range[1]) == Pattern.bytes(range[0]..<range[1]))
                }
                try makeRoom(mirror)
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
                try mirror.stop()
                try expectRight(mirror)
                #expect(try mirror.state("file", inLower: true).state == "dual")
            }
        }

        @Test("A fill beyond a quota fails with EDQUOT, and works when there is more")
        func quota() throws {
            // The quotas of Btrfs hold for root too.
            let make =
                "truncate -s 400M image; mkfs.btrfs -q image; mount -o loop image lower; btrfs quota enable lower"
            try withSmallDisk(make: make) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 30 << 20)
            } _: { mirror throws in
                let limit = "btrfs qgroup limit $1 . && sync -f ."
                try shell(limit, in: mirror.lower, ["10m"])
                try mirror.start(["--fill", "read"])
                for _ in 0..<3 { #expect(File.readError(mirror.at("file")) == EDQUOT) }
                // The quota may be too small for a note in the record.
                #expect(mirror.log.contains("code=EDQUOT"))
                for range in try mirror.state("file").ranges {
                    let range = range[0]..<range[1]
                    #expect(try File.bytes(mirror.at("file"), range) == Pattern.bytes(range))
                }
                try shell(limit, in: mirror.lower, ["none"])
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
                try mirror.stop()
                try expectRight(mirror)
                #expect(try mirror.state("file", inLower: true).state == "dual")
            }
        }

        @Test(
            "1,000 fills with the space gone in the middle: each file is whole or an error, before and after a restart")
        func thousand() throws {
            let (count, size) = (1000, 100_000)
            try withSmallDisk { mirror throws in
                for index in 0..<count { try Pattern.write(mirror.remote("f\(index)"), size: size, seed: index) }
            } _: { mirror throws in
                try mirror.start()
                try fillUp(mirror, leaving: 40 << 20)
                var failed: [Int] = []
                for index in 0..<count {
                    do {
                        #expect(try File.bytes(mirror.at("f\(index)")) == Pattern.bytes(0..<size, seed: index))
                    } catch let error as Errno {
                        #expect(error.rawValue == ENOSPC)
                        failed.append(index)
                    }
                }
                #expect(failed.count > 100 && failed.count < 900, "\(failed.count) of \(count) failed")
                try mirror.killDaemon()
                try expectRight(mirror)
                try mirror.start()
                for index in failed.prefix(20) {
                    let error = File.readError(mirror.at("f\(index)"))
                    #expect(error == ENOSPC || error == 0)
                }
                try makeRoom(mirror)
                for index in 0..<count {
                    #expect(try File.bytes(mirror.at("f\(index)")) == Pattern.bytes(0..<size, seed: index))
                }
                try mirror.stop()
                try expectRight(mirror)
            }
        }
    }
}
