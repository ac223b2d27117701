import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Names and contents that change at any moment of a fill.
    @Suite struct FillMoments {
        private static let size = 4 << 20
        private static let moments = Machine.isLong ? 40 : 8

        enum Change: String, CaseIterable { case rename, replace, unlink, link, overwrite, truncate, extend, release }

        @Test("A fill goes on rightly whatever happens to its file meanwhile", arguments: Change.allCases)
        func change(_ change: Change) throws {
            try withMirror(mounting: nil) { mirror throws in
                for moment in 0..<Self.moments {
                    try Pattern.write(mirror.remote("f\(moment)"), size: Self.size, seed: moment)
                    try Pattern.write(mirror.remote("g\(moment)"), size: 100_000, seed: moment + 500)
                }
            } _: { mirror throws in
                // About 200 ms a file.
                try mirror.start(["--fill", "read"], remote: "latency=1ms,bandwidth=20M")
                for moment in 0..<Self.moments { try act(change, mirror, moment) }
                try mirror.stop()
                try mirror.start()
                for moment in 0..<Self.moments { try check(change, mirror, moment, "after a restart") }
            }
        }

        private func act(_ change: Change, _ mirror: Mirror, _ moment: Int) throws {
            let file = try File.open(mirror.at("f\(moment)"))
            // Finds the file also when its name is gone by then.
            let name = "/proc/\(getpid())/fd/\(file.raw)"
            let reader = try Child(["bash", "-c", "cat \"$1\" >/dev/null", "bash", name])
            usleep(UInt32(220_000 * moment / Self.moments))
            let path = mirror.at("f\(moment)")
            switch change {
            case .rename: #expect(rename(path, mirror.at("renamed\(moment)")) == 0)
            case .replace: #expect(rename(mirror.at("g\(moment)"), path) == 0)
            case .unlink: #expect(unlink(path) == 0)
            case .link: #expect(link(path, mirror.at("linked\(moment)")) == 0)
            case .overwrite:
                try File.open(path, O_WRONLY | O_TRUNC).put(Pattern.bytes(0..<200_000, seed: 900), at: 0)
            case .truncate: #expect(truncate(path, 1_000_001) == 0)
            case .extend: #expect(truncate(path, off_t(Self.size + 100_000)) == 0)
            case .release: #expect(try passhsm("release", path).err.contains("open"))
            }
            let ended = try reader.wait(seconds: 30)
            #expect(ended.code == 0 || [.overwrite, .truncate].contains(change), "\(change) \(moment): \(ended)")
            let expected = Pattern.bytes(0..<Self.size, seed: moment)
            switch change {
            case .rename, .replace, .unlink, .link, .release:
                #expect(try file.bytes(0..<Self.size) == expected, "\(change) \(moment): by the handle")
            case .overwrite, .truncate, .extend: break
            }
            try check(change, mirror, moment, "at once")
        }

        private func check(_ change: Change, _ mirror: Mirror, _ moment: Int, _ when: String) throws {
            let whole = Pattern.bytes(0..<Self.size, seed: moment)
            let path = mirror.at("f\(moment)")
            let found: [(String, [UInt8])] =
                switch change {
                case .rename: [(mirror.at("renamed\(moment)"), whole)]
                case .replace: [(path, Pattern.bytes(0..<100_000, seed: moment + 500))]
                case .unlink: []
                case .link: [(path, whole), (mirror.at("linked\(moment)"), whole)]
                case .overwrite: [(path, Pattern.bytes(0..<200_000, seed: 900))]
                case .truncate: [(path, Array(whole.prefix(1_000_001)))]
                case .extend: [(path, whole + [UInt8](repeating: 0, count: 100_000))]
                case .release: [(path, whole)]
                }
            for (path, expected) in found {
                let isRight = try File.bytes(path) == expected
                #expect(isRight, "\(change) at moment \(moment), \(when)")
            }
            if change == .rename || change == .unlink { #expect(access(path, F_OK) != 0) }
        }

        @Test(
            "A mount, an import and a release of a directory that is in use under another name are refused, and say by whom"
        )
        func another() throws {
            try withMirror(apart: true) { mirror throws in
                try Pattern.write(mirror.remote("f"), size: Self.size)
            } _: { mirror throws in
                let other = mirror.scratch.path + "/other"
                mkdir(other, 0o755)
                // Under another name, which the registry of mounts does not know, the lock tells.
                let bound = mirror.scratch.path + "/bound"
                try shell("mkdir \"$1\"; mount --bind \"$2\" \"$1\"", [bound, mirror.lower])
                defer { umount2(bound, 0) }
                for arguments in [
                    ["mount", bound, other], ["import", mirror.source, bound], ["release", bound + "/f"],
                ] {
                    let output = try run([Machine.program] + arguments)
                    #expect(output.code == 1 && output.err.contains("mounted on \(mirror.mount)"), "\(output)")
                }
                #expect(try File.bytes(mirror.at("f")) == Pattern.bytes(0..<Self.size))
            }
        }
    }
}
