import CLinux
import Foundation
import Glibc
import TestSupport

/// What these tests need of the machine: root, /dev/fuse, and the program beside the test bundle.
enum Machine {
    /// Long campaigns (`make test-long`) instead of CI's forms.
    static let isLong = ProcessInfo.processInfo.environment["PASSHSM_LONG"] == "1"

    static let program: String = {
        // The bundle's own path: it is what runs, or it was loaded by what runs.
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent("passhsm").path
    }()

    /// - Throws: why the mount tests cannot run here. They fail then; they are not skipped.
    static func check() throws {
        guard geteuid() == 0 else { throw Failure("the mount tests want root: this is user \(geteuid())") }
        guard access("/dev/fuse", R_OK | W_OK) == 0 else {
            throw Failure("the mount tests want /dev/fuse: \(String(cString: strerror(errno)))")
        }
        guard access(program, X_OK) == 0 else { throw Failure("\(program) is not built") }
    }
}

/// Whether a process that need not be our child still runs, with any of its threads: a killed one's first may be gone
/// before the others. One that only waits for its parent to ask has ended.
func isRunning(_ pid: pid_t) -> Bool {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8) else { return false }
    if text.split(separator: ")").last?.first(where: { $0 != " " }) != "Z" { return true }
    return ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []).count > 1
}

/// Whether the process is in open(2) of `path`, and has not got it yet.
func isOpening(_ pid: pid_t, _ path: String) -> Bool {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/syscall", encoding: .utf8) else { return false }
    let fields = text.split(separator: " ")
    guard fields.count > 2, fields[0] == "\(PASSHSM_SYS_OPENAT)",
        let address = UInt64(fields[2].dropFirst(2), radix: 16),
        let memory = try? File.open("/proc/\(pid)/mem")
    else { return false }
    return (try? memory.bytes(Int(address)..<Int(address) + path.utf8.count))?.elementsEqual(path.utf8) == true
}

/// Whether a thread of the process stands at a failpoint that hangs: in pause(2), by its number on x86-64.
func hangs(_ pid: pid_t) -> Bool {
    let tasks = "/proc/\(pid)/task"
    return ((try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []).contains { task in
        (try? String(contentsOfFile: "\(tasks)/\(task)/syscall", encoding: .utf8))?.hasPrefix("34 ") == true
    }
}

/// Runs `passhsm`.
func passhsm(_ arguments: String..., seconds: Double = 120) throws -> Output {
    try run([Machine.program] + arguments, seconds: seconds)
}

/// A temporary directory that is gone after its use, whatever is mounted in it.
final class Scratch {
    let path: String

    init() throws {
        path = try TemporaryDirectory(in: ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp").path
        // Some tests act as other users.
        chmod(path, 0o755)
    }

    /// Removes it; mounts that a test left inside are taken away first, and told.
    func remove() throws {
        let left = mounts
        for mount in left.reversed() { umount2(mount, Int32(MNT_DETACH)) }
        let output = try run(["rm", "-rf", "--one-file-system", path], seconds: 600)
        if output.code != 0 { throw Failure("\(output)") }
        if !left.isEmpty { throw Failure("mounts were left: \(left)") }
    }

    private var mounts: [String] {
        let table = (try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)) ?? ""
        return table.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ")
            return fields.count > 1 && fields[1].hasPrefix(path + "/") ? String(fields[1]) : nil
        }
    }
}

func withScratch(_ body: (Scratch) throws -> Void) throws {
    try Machine.check()
    let scratch = try Scratch()
    do { try body(scratch) } catch {
        try? scratch.remove()
        throw error
    }
    try scratch.remove()
}
