import Foundation
import Glibc

/// What a process left behind.
struct Output: CustomStringConvertible {
    let command: String
    /// As waitpid(2) gives it.
    let status: Int32
    let out: String
    let err: String

    /// The exit code, or 128 and the signal as shells have it.
    var code: Int32 { status & 0x7f == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f) }
    var description: String {
        let shown = err.count > 3000 ? err.prefix(1500) + " […] " + err.suffix(1500) : err[...]
        return "`\(command.prefix(300))` ended with \(code): \(shown)\(out.suffix(500))"
    }
}

struct Failure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// A process of ours, whose output goes to files without names, so that it never waits for a reader.
final class Child {
    let pid: pid_t
    let command: String
    private let out: Int32
    private let err: Int32
    private var status: Int32?

    /// - Parameter arguments: the program comes first, looked for in PATH.
    init(_ arguments: [String], in directory: String? = nil, environment: [String: String] = [:]) throws {
        let arguments = (directory.map { ["env", "-C", $0] } ?? []) + arguments
        command = arguments.joined(separator: " ")
        (out, err) = (try Self.nameless(), try Self.nameless())
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, out, 1)
        posix_spawn_file_actions_adddup2(&actions, err, 2)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // The test runner blocks and ignores signals of its own.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        // A shell's background job, as the runner may be, ignores SIGINT.
        var every = sigset_t()
        sigfillset(&every)
        posix_spawnattr_setsigdefault(&attributes, &every)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        let all = ProcessInfo.processInfo.environment.merging(["LC_ALL": "C.UTF-8"]) { $1 }.merging(environment) { $1 }
        let names = arguments.map { strdup($0) } + [nil]
        let variables = all.map { strdup("\($0)=\($1)") } + [nil]
        defer { for text in names + variables { free(text) } }
        var pid: pid_t = 0
        let result = posix_spawnp(&pid, arguments[0], &actions, &attributes, names, variables)
        self.pid = pid
        guard result == 0 else {
            throw Failure("\(arguments[0]): \(String(cString: strerror(result)))")
        }
    }

    deinit {
        if pid > 0, status == nil {
            Glibc.kill(pid, SIGKILL)
            _ = try? wait(seconds: 5)
        }
        close(out)
        close(err)
    }

    private static func nameless() throws -> Int32 {
        var name = Array("/tmp/passhsm-output.XXXXXX\0".utf8CString)
        let descriptor = mkstemp(&name)
        guard descriptor >= 0 else { throw Failure("mkstemp: \(String(cString: strerror(errno)))") }
        unlink(name)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        return descriptor
    }

    private static func text(of descriptor: Int32) -> String {
        var result: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = pread(descriptor, &buffer, buffer.count, result.count)
            guard count > 0 else { return String(decoding: result, as: UTF8.self) }
            result += buffer[..<count]
        }
    }

    /// What it has written to stdout so far.
    var outputSoFar: String { Self.text(of: out) }

    func kill(_ signal: Int32) { if status == nil { Glibc.kill(pid, signal) } }

    /// Nil when it still runs.
    func poll() -> Output? {
        if status == nil {
            var result: Int32 = 0
            guard waitpid(pid, &result, WNOHANG) == pid else { return nil }
            status = result
        }
        return status.map { Output(command: command, status: $0, out: Self.text(of: out), err: Self.text(of: err)) }
    }

    /// - Throws: when it has not ended in time; it goes on.
    func wait(seconds: Double) throws -> Output {
        let end = Clock.now + seconds
        while true {
            if let output = poll() { return output }
            if Clock.now > end { throw Failure("`\(command)` has not ended within \(seconds) s") }
            usleep(1000)
        }
    }
}

enum Clock {
    /// Seconds since boot.
    static var now: Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}

/// Runs a program to its end; one that takes longer than `seconds` is killed, and that is an error.
func run(
    _ arguments: [String], in directory: String? = nil, environment: [String: String] = [:], seconds: Double = 120
) throws -> Output {
    let child = try Child(arguments, in: directory, environment: environment)
    do {
        return try child.wait(seconds: seconds)
    } catch {
        child.kill(SIGKILL)
        throw error
    }
}

/// Runs a bash script that has to succeed; what it wrote to stdout.
@discardableResult
func shell(_ script: String, in directory: String? = nil, _ arguments: [String] = [], seconds: Double = 120) throws
    -> String
{
    let output = try run(
        ["bash", "-c", "set -euo pipefail\n" + script, "bash"] + arguments, in: directory, seconds: seconds)
    guard output.code == 0 else { throw Failure("\(output)") }
    return output.out
}
