import CLinux
import Glibc

/// A child process, started by posix_spawn(3): Swift has no fork.
package struct ChildProcess: Sendable {
    package let id: Int32

    /// The descriptors 0 to 3 of the child; nil stands for closed. The child inherits no other descriptor.
    package struct Descriptors {
        package var input: Descriptor?
        package var output: Descriptor?
        package var errors: Descriptor?
        package var extra: Descriptor?

        package init(
            input: Descriptor? = nil, output: Descriptor? = nil, errors: Descriptor? = nil, extra: Descriptor? = nil
        ) {
            self.input = input
            self.output = output
            self.errors = errors
            self.extra = extra
        }
    }

    /// - Parameters:
    ///   - arguments: the first is the name by which the program knows itself.
    ///   - environment: `NAME=value` each; nil for this process's own.
    ///   - newSession: calls setsid(2), which detaches the child from the terminal.
    package init(
        program: BytePath, arguments: [BytePath], environment: [BytePath]? = nil, descriptors: Descriptors,
        newSession: Bool = false
    ) throws(Errno) {
        var request = passhsm_spawn()
        request.descriptors = (
            descriptors.input?.raw ?? -1, descriptors.output?.raw ?? -1, descriptors.errors?.raw ?? -1,
            descriptors.extra?.raw ?? -1
        )
        request.new_session = newSession ? 1 : 0
        id = try program.withCString { path throws(Errno) in
            request.path = path
            return try Self.withPointers(arguments) { arguments throws(Errno) in
                request.arguments = arguments
                return try Self.withPointers(environment ?? Self.environment) { environment throws(Errno) in
                    request.environment = environment
                    return try check { passhsm_spawn(&request) }
                }
            }
        }
        withExtendedLifetime(descriptors) {}
    }

    /// Waits for the child's end. Returns its exit status, or 128 plus the number of the signal that ended it. Blocks.
    package func wait() throws(Errno) -> Int32 {
        var status: Int32 = 0
        _ = try check { passhsm_wait(id, &status) }
        return status
    }

    /// This process's environment, byte for byte.
    package static var environment: [BytePath] {
        var result = [BytePath]()
        var next = passhsm_environment()
        while let entry = next?.pointee {
            result.append(BytePath(cString: entry))
            next = next?.successor()
        }
        return result
    }

    private static func withPointers<Result>(
        _ strings: [BytePath], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>?) throws(Errno) -> Result
    ) throws(Errno) -> Result {
        var copies: [UnsafeMutablePointer<CChar>?] = []
        defer { for copy in copies { free(copy) } }
        for string in strings {
            copies.append(try string.withCString { text throws(Errno) in strdup(text) })
        }
        return try (copies + [nil]).withUnsafeBufferPointer { buffer throws(Errno) in try body(buffer.baseAddress) }
    }

    /// A pipe: the end to read from and the end to write to.
    package static func pipe() throws(Errno) -> (reader: Descriptor, writer: Descriptor) {
        var ends: [Int32] = [-1, -1]
        _ = try check { ends.withUnsafeMutableBufferPointer { passhsm_pipe_cloexec($0.baseAddress) } }
        return (Descriptor(owning: ends[0]), Descriptor(owning: ends[1]))
    }
}
