import Foundation
import Glibc
import HSMDiagnostics
import HSMSystem
import TestSupport
import Testing

@Suite struct DoctorTests {
    @Test(arguments: [
        ("6.18.4-1-amd64", KernelVersion(6, 18)), ("6.9", KernelVersion(6, 9)), ("5.4.0", KernelVersion(5, 4)),
        ("6.9-rc1", KernelVersion(6, 9)),
    ])
    func aReleaseHasAVersion(release: String, version: KernelVersion) {
        #expect(KernelVersion(release: release) == version)
    }

    @Test func versionsCompareByNumber() {
        #expect(KernelVersion(6, 18) > KernelVersion(6, 9))
        #expect(KernelVersion(5, 99) < KernelVersion(6, 0))
        #expect(KernelVersion(release: "strange") == nil)
    }

    @Test func passthroughNeedsTheKernelThePrivilegeAndAPlainLower() {
        func verdict(_ kernel: KernelVersion?, _ admin: Bool, _ type: String?) -> Finding.Verdict {
            Doctor.passthrough(kernel: kernel, mayAdministrate: admin, lowerType: type).verdict
        }
        #expect(verdict(KernelVersion(6, 9), true, "ext4") == .ok)
        #expect(verdict(KernelVersion(6, 9), true, nil) == .ok)
        #expect(verdict(KernelVersion(6, 8), true, "ext4") == .missing)
        #expect(verdict(nil, true, "ext4") == .missing)
        #expect(verdict(KernelVersion(6, 18), false, "ext4") == .missing)
        #expect(verdict(KernelVersion(6, 18), true, "overlay") == .limited)
        #expect(verdict(KernelVersion(6, 18), true, "fuse.sshfs") == .limited)
    }

    @Test func theVerdictNamesTheObstacle() {
        let ok = Finding("x", .ok, "")
        let noDevice = Finding("/dev/fuse", .missing, "not there")
        #expect(Doctor.verdict(device: noDevice, passthrough: ok, lower: []).detail.contains("not there"))
        let noAttributes = Finding("extended attributes", .missing, "none")
        #expect(Doctor.verdict(device: ok, passthrough: ok, lower: [noAttributes]).verdict == .missing)
        let noReflink = Finding("reflink", .missing, "none")
        #expect(Doctor.verdict(device: ok, passthrough: ok, lower: [noReflink]).verdict == .ok)
    }

    @Test func aRequestTimeoutIsAWarning() {
        #expect(Doctor.requestTimeout(default: nil, maximum: nil).verdict == .ok)
        #expect(Doctor.requestTimeout(default: 0, maximum: 0).verdict == .ok)
        #expect(Doctor.requestTimeout(default: 0, maximum: 60).detail.hasPrefix("60 s"))
        #expect(Doctor.requestTimeout(default: 30, maximum: 60).detail.hasPrefix("30 s"))
    }

    @Test func examiningALowerDirectoryLeavesNothingBehind() throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let folder = directory.path
        let findings = Doctor(libfuse: "3").examine(lower: BytePath(folder))
        #expect(DirectoryReader.texts(in: folder) == [])
        #expect(findings.contains { $0.name == "extended attributes" && $0.verdict != .missing })
        #expect(findings.last?.name == "mount")
        let open = DirectoryReader.texts(in: "/proc/self/fd").compactMap { number in
            try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(number)")
        }
        #expect(!open.isEmpty && !open.contains { $0.hasPrefix(folder) })
    }

    @Test func aMissingLowerDirectoryCannotBeMounted() {
        let findings = Doctor(libfuse: "3").examine(lower: BytePath("/nowhere"))
        #expect(findings.last?.verdict == .missing)
    }
}
