import ArgumentParser
import HSMCore

/// The size of granules on the command line: a number of bytes, or a number with K or M behind.
struct GranuleArgument: ExpressibleByArgument {
    /// Bytes, one of ``GranuleLayout/granuleSizes``.
    let size: Int

    init?(argument: String) {
        let shift: Int? = [("K", 10), ("M", 20)].first { argument.hasSuffix($0.0) }?.1
        guard let number = Int(shift == nil ? argument[...] : argument.dropLast()) else { return nil }
        let (size, isTooLarge) = number.multipliedReportingOverflow(by: 1 << (shift ?? 0))
        guard !isTooLarge, GranuleLayout.granuleSizes.contains(size) else { return nil }
        self.size = size
    }
}
