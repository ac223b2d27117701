import HSMCore

/// Times in HTTP's headers (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`, to the second.
package enum HTTPDate {
    private static let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    private static let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]

    /// Seconds since 1970; nil for anything else, including the two obsolete forms.
    package static func seconds(_ text: some StringProtocol) -> Int? {
        let parts = text.split(separator: " ")
        guard parts.count == 6, parts[5] == "GMT", parts[0].last == ",",
            let month = months.firstIndex(of: String(parts[2]))
        else { return nil }
        let numbers = ([parts[1], parts[3]] + parts[4].split(separator: ":")).compactMap { Int(digits: $0) }
        guard numbers.count == 5, (1...31).contains(numbers[0]), (0...9999).contains(numbers[1]),
            (0...23).contains(numbers[2]), (0...59).contains(numbers[3]), (0...60).contains(numbers[4])
        else { return nil }
        let days = days(year: numbers[1], month: month + 1, day: numbers[0])
        return days * 86_400 + numbers[2] * 3600 + numbers[3] * 60 + numbers[4]
    }

    /// The years with four digits, in seconds since 1970.
    package static let representable = -62_167_219_200...253_402_300_799

    /// The text of a time.
    ///
    /// - Parameter seconds: seconds since 1970. A time outside of ``representable`` is replaced by the nearest one
    ///   inside.
    package static func text(_ seconds: Int) -> String {
        let seconds = min(max(seconds, representable.lowerBound), representable.upperBound)
        let day = Int((Double(seconds) / 86_400).rounded(.down))
        let time = seconds - day * 86_400
        let date = date(ofDay: day)
        let clock = [time / 3600, time / 60 % 60, time % 60].map(padded).joined(separator: ":")
        let name = days[((day % 7) + 7) % 7]
        let year = String(repeating: "0", count: max(0, 4 - "\(date.year)".count)) + "\(date.year)"
        return "\(name), \(padded(date.day)) \(months[date.month - 1]) \(year) \(clock) GMT"
    }

    /// The number of days from 1970 to a date of the Gregorian calendar; ``date(ofDay:)`` is the reverse. These are
    /// Howard Hinnant's `days_from_civil` and `civil_from_days`, for years from 0 on.
    package static func days(year: Int, month: Int, day: Int) -> Int {
        let year = month <= 2 ? year - 1 : year
        let era = (year >= 0 ? year : year - 399) / 400
        let yearOfEra = year - era * 400
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    package static func date(ofDay number: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = number + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let index = (5 * dayOfYear + 2) / 153
        let month = index < 10 ? index + 3 : index - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * index + 2) / 5 + 1)
    }

    private static func padded(_ number: Int) -> String { (number < 10 ? "0" : "") + "\(number)" }
}
