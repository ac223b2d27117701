import Glibc
import HSMControl
import HSMSystem

/// Starts this program again as a daemon, because Swift has no fork. The daemon gets the same arguments and
/// `--foreground`, a session of its own, and a log for its output.
struct DaemonLauncher {
    let log: BytePath

    /// Waits until the daemon is ready, and returns the line that it wants printed.
    func launch() throws -> String {
        let output: Descriptor
        do throws(Errno) { output = try DaemonLog.open(log) } catch {
            let isRefused = error.rawValue == EPERM || error.rawValue == ELOOP
            let cause = isRefused ? "is a link, or not a file of this user" : "cannot be opened: \(error.text)"
            throw CommandError("the log \(log) \(cause); choose another one with --log")
        }
        let start = try output.stat().st_size
        let (reader, child) = try spawn(output)
        let message = String(decoding: try reader.readToEnd(), as: UTF8.self)
        if message.hasPrefix(Readiness.ok) { return String(message.dropFirst(Readiness.ok.count)) }
        if message.hasPrefix(Readiness.error) { throw CommandError(String(message.dropFirst(Readiness.error.count))) }
        let status = try child.wait()
        let lines = DaemonLog.tail(output, from: start)
        let said = lines.isEmpty ? "" : ": " + lines.joined(separator: " | ")
        throw CommandError("the daemon ended with status \(status) before the mount was ready\(said) (log: \(log))")
    }

    /// Starts the daemon and returns the end of a pipe to read its message from. This process keeps no copy of the
    /// other end.
    private func spawn(_ output: Descriptor) throws(Errno) -> (Descriptor, ChildProcess) {
        let (reader, writer) = try ChildProcess.pipe()
        // The option stands behind the name of the command, so that it cannot come after a `--`.
        var arguments = ProgramArguments.raw
        arguments.insert(BytePath("--foreground"), at: min(2, arguments.count))
        let variable = Array("\(Readiness.variable)=".utf8)
        let environment = ChildProcess.environment.filter { !$0.bytes.starts(with: variable) }
        let child = try ChildProcess(
            program: OwnProcess.program, arguments: arguments, environment: environment + [BytePath(variable + [0x33])],
            descriptors: .init(
                input: try Descriptor.open("/dev/null", O_RDONLY), output: output, errors: output, extra: writer),
            newSession: true)
        return (reader, child)
    }
}
