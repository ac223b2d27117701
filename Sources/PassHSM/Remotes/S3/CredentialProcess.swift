import Glibc
import HSMSystem

/// Credentials that a program prints: a profile's `credential_process`. Source: "Sourcing credentials with an external
/// process" in the AWS SDKs' reference.
struct CredentialProcess {
    let answer: TemporaryCredentials

    private static let maxAnswer = 1 << 16
    private static let timeout = 30.0

    /// Runs `command` with the shell, as the SDKs do. Blocks until it ends or `timeout` seconds have passed.
    ///
    /// - Throws: when the command fails, or prints anything but credentials. The error does not contain its output.
    init(_ command: String, timeout: Double = Self.timeout) throws(LocationError) {
        let failure = LocationError("the profile's credential_process gives no credentials")
        let text: [UInt8]
        do throws(Errno) {
            let (reader, child) = try Self.start(command)
            do throws(Errno) { text = try Self.answer(from: reader, until: Deadline(seconds: timeout)) } catch {
                // The signal goes to its whole session, with everything that it started.
                kill(-child.id, SIGKILL)
                _ = try child.wait()
                throw error
            }
            guard try child.wait() == 0 else { throw Errno(rawValue: ECHILD) }
        } catch { throw failure }
        guard let answer = TemporaryCredentials(json: text, version: 1) else { throw failure }
        self.answer = answer
    }

    /// Starts the command. The writing end of the pipe is closed here when this returns, so that the output has an end.
    private static func start(_ command: String) throws(Errno) -> (Descriptor, ChildProcess) {
        let (reader, writer) = try ChildProcess.pipe()
        let null = try Descriptor.open("/dev/null", O_RDWR)
        let child = try ChildProcess(
            program: BytePath("/bin/sh"), arguments: ["sh", "-c", command].map { BytePath($0) },
            descriptors: .init(input: null, output: writer, errors: null), newSession: true)
        return (reader, child)
    }

    private static func answer(from reader: Descriptor, until deadline: Deadline) throws(Errno) -> [UInt8] {
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while text.count <= maxAnswer, try reader.wait(for: Int16(POLLIN), until: deadline) {
            let count = try buffer.withMutableBytes { bytes throws(Errno) in
                try check { read(reader.raw, bytes.baseAddress, bytes.count) }
            }
            if count == 0 { return text }
            text += buffer[..<count]
        }
        throw Errno(rawValue: ETIMEDOUT)
    }
}
