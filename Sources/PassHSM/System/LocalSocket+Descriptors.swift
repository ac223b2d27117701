import CLinux
import Glibc

/// Passing open descriptors to another process (SCM_RIGHTS, unix(7)).
extension LocalSocket {
    /// The largest number of descriptors in one message.
    private static let maxDescriptors = 4

    /// Sends a short line and at most 4 descriptors, of which the other side gets copies.
    ///
    /// - Throws: ETIMEDOUT when the other side does not read; EPIPE when it is gone.
    package func send(
        _ line: [UInt8], _ descriptors: [Descriptor] = [], until deadline: Deadline
    ) throws(Errno) {
        guard try descriptor.wait(for: Int16(POLLOUT), until: deadline) else { throw Errno(rawValue: ETIMEDOUT) }
        let bytes = line + [UInt8(ascii: "\n")]
        let numbers = descriptors.map(\.raw)
        let count = try check {
            bytes.withUnsafeBytes { bytes in
                numbers.withUnsafeBufferPointer { numbers in
                    passhsm_send_descriptors(
                        descriptor.raw, bytes.baseAddress, bytes.count, numbers.baseAddress, Int32(numbers.count))
                }
            }
        }
        withExtendedLifetime(descriptors) {}
        if count != bytes.count { throw Errno(rawValue: EMSGSIZE) }
    }

    /// Receives a line that the other side sent with ``send(_:_:until:)``, without its newline, and its descriptors.
    ///
    /// - Throws: ETIMEDOUT; ECONNRESET when the other side has ended; EMSGSIZE when there is no line of at most 16 KiB.
    package func receive(until deadline: Deadline) throws(Errno) -> (line: [UInt8], descriptors: [Descriptor]) {
        var line: [UInt8] = []
        var descriptors: [Descriptor] = []
        var buffer = [UInt8](repeating: 0, count: 16 << 10)
        while line.last != UInt8(ascii: "\n") {
            if line.count >= buffer.count { throw Errno(rawValue: EMSGSIZE) }
            guard try descriptor.wait(for: Int16(POLLIN), until: deadline) else { throw Errno(rawValue: ETIMEDOUT) }
            var numbers = [Int32](repeating: -1, count: Self.maxDescriptors)
            var found: Int32 = 0
            let count: Int
            do throws(Errno) {
                count = try check {
                    buffer.withUnsafeMutableBytes { bytes in
                        numbers.withUnsafeMutableBufferPointer { numbers in
                            passhsm_receive_descriptors(
                                descriptor.raw, bytes.baseAddress, bytes.count, numbers.baseAddress, &found)
                        }
                    }
                }
            } catch {
                if error.rawValue == EAGAIN { continue }
                throw error
            }
            descriptors += numbers.prefix(Int(found)).map { Descriptor(owning: $0) }
            if count == 0 { throw Errno(rawValue: ECONNRESET) }
            line += buffer[..<count]
        }
        return (line.dropLast(), descriptors)
    }
}
