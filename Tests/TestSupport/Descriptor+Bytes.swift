import HSMSystem

extension Descriptor {
    /// The bytes of `range`, fewer at the end of the file.
    package func bytes(_ range: Range<Int>) throws(Errno) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: range.count)
        let count = try result.withMutableBytes { buffer throws(Errno) in try read(into: buffer, at: range.lowerBound) }
        return Array(result.prefix(count))
    }

    package func put(_ bytes: [UInt8], at offset: Int) throws(Errno) {
        try bytes.withBytes { buffer throws(Errno) in try write(buffer, at: offset) }
    }
}
